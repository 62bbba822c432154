# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Loading into a model: every difference is declared, or an error that names the keys.

Declared, always: published names; position-bias tables of another window size, resized.
Declared, where a backbone is loaded alone: all that is not the backbone is left out, and so are output norms and stages
that the model lacks.
Declared, when training starts from the file: the model's output norms where the file has none at all, and global
tokens of another number, stay as initialised.
"""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmlightvit import published
from mmlightvit.checkpoint.identify import (
    Source,
    architecture_of,
    averages,
    find_state_dict,
    kind_of,
    number_of_classes,
    recognise,
    shorten,
)
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.errors import UserError

_OUTPUT_NORM = re.compile(r'norm\d+\.(weight|bias)')


@dataclass
class LoadReport:
    """The outcome of loading a checkpoint; keys are listed by the reason."""

    name: str  #: The file.
    source: str  #: What it was recognised as.
    loaded: int = 0  #: How many tensors went into the model.
    left_out: dict[str, list[str]] = field(default_factory=dict)  #: Keys of the file that the model does not take.
    fresh: dict[str, list[str]] = field(default_factory=dict)  #: Parameters that stay as initialised.
    resized: list[str] = field(default_factory=list)  #: Position-bias tables brought to the model's window size.
    averages: list[str] = field(default_factory=list)  #: Entries of averaged weights, which were not taken.

    def __str__(self) -> str:
        rows = [(f'initialised afresh, {reason}', keys) for reason, keys in self.fresh.items()]
        rows += [(f'left out, {reason}', keys) for reason, keys in self.left_out.items()]
        rows += [('resized to the window of the model', self.resized)] if self.resized else []
        if self.averages:
            what = 'not taken (mmlightvit convert --weights ENTRY writes them to a file of their own), averaged weights'
            rows.append((what, self.averages))
        listed = [f'\n  {what} ({len(keys)}): {", ".join(keys)}' for what, keys in rows]
        return f'Loaded {self.loaded} tensors from {self.name} ({self.source}).{"".join(listed)}'

    def log(self) -> None:
        """Log it, as a warning where not all of the model comes from the file as it is."""
        level = logging.WARNING if self.fresh or self.resized or self.averages else logging.INFO
        print_log(str(self), logger='current', level=level)


def load_into(
    model: nn.Module,
    checkpoint: str | Mapping[str, Any],
    *,
    starting: bool = False,
    prefix: str | None = None,
    fresh: Sequence[str] = (),
    map_location: Any = 'cpu',
    name: str | None = None,
) -> LoadReport:
    """Load a checkpoint, published or ours, into a model that has parts of this project.

    The model is changed only after everything was found to fit.

    Args:
        model: A classifier, detector, segmenter, bare LightViT, neck or head.
        checkpoint: Path or address, or what :func:`read_checkpoint` gave.
        starting: Whether training starts from the file, so that declared parts may stay as initialised. Without,
            every parameter of the model comes from the file.
        prefix: Load only the part of the file under this prefix, as mmengine's ``Pretrained`` does.
        fresh: Beginnings of parameter names that stay as initialised where their shapes differ or the file lacks them,
            such as a head for another number of classes. Each has to be needed.
        map_location: As in ``torch.load``.
        name: The file, for messages.

    Returns:
        What was loaded, left out, initialised afresh and resized; the same is logged.

    Raises:
        UserError: The file does not fit; the message names the keys, and the model is untouched.
    """
    if not isinstance(checkpoint, Mapping):
        name = name or str(checkpoint)
        checkpoint = read_checkpoint(checkpoint, map_location)
    model = unwrap(model)
    complete, report = complete_state(
        model, checkpoint, name or 'checkpoint', starting=starting, prefix=prefix, fresh=fresh
    )
    model.load_state_dict(complete)
    report.log()
    return report


def complete_state(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    name: str,
    *,
    starting: bool = False,
    prefix: str | None = None,
    fresh: Sequence[str] = (),
    other_classes: bool = False,
) -> tuple[dict[str, Tensor], LoadReport]:
    """A state dict that the model loads strictly, and what becomes of each key. As :func:`load_into` otherwise.

    ``other_classes``: parameters behind the backbone stay as initialised where their number of outputs alone differs.
    """
    fresh = (fresh,) if isinstance(fresh, str) else tuple(fresh)
    weights = find_state_dict(checkpoint, name)
    foreign = _has_another_backbone(model)
    # Another backbone may have stages too, which would be taken for those of the published files.
    expected = model.state_dict()
    source = Source('native', 'other', weights) if foreign else recognise(weights, name, expected)
    report = LoadReport(name, str(source), averages=averages(checkpoint))
    incoming, alone = _select(source, {} if foreign else expected, report, starting, prefix)
    declared = _declared_fresh(expected, incoming, source.kind if alone else None) if starting and not foreign else {}
    complete: OrderedDict[str, Tensor] = OrderedDict()
    complete._metadata = expected._metadata  # type: ignore[attr-defined]
    missing, reshaped = [], []
    for key, present in expected.items():
        value = incoming.pop(key, None)
        beginning = next((b for b in fresh if key.startswith(b)), None)
        reason = declared.get(key) or (f'declared by {beginning}' if beginning else None)
        if other_classes and value is not None and 'backbone.' not in key and value.shape[1:] == present.shape[1:]:
            reason = reason or 'for another number of classes'
        if value is not None and value.shape == present.shape:
            complete[key] = value
        elif reason is not None:
            complete[key] = present
            report.fresh.setdefault(reason, []).append(key)
        elif value is None:
            missing.append(key)
        else:
            change = f'{key} {list(value.shape)}'
            is_table = key.endswith(f'.{published.TABLE}') and value.shape[1:] == present.shape[1:]
            resized = published.resize_table(value, len(present)) if is_table else None
            if resized is None:
                reshaped.append(f'{change}, expected {list(present.shape)}')
            else:
                complete[key] = resized
                report.resized.append(f'{change} -> {list(present.shape)}')
    report.loaded = len(complete) - sum(map(len, report.fresh.values()))
    for key in [key for key in incoming if key.startswith(fresh)]:
        report.left_out.setdefault('declared', []).append(key)
        del incoming[key]
    touched = [key for keys in (*report.fresh.values(), *report.left_out.values()) for key in keys]
    if idle := [beginning for beginning in fresh if not any(key.startswith(beginning) for key in touched)]:
        raise UserError(
            f'load_fresh: {", ".join(idle)} match no parameter that differs from {name}; take them out or correct them.'
        )
    differences = {'missing': missing, 'unexpected': list(incoming), 'of another shape': reshaped}
    if any(differences.values()):
        raise _misfit(name, source, differences, starting, expected)
    return complete, report


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside distributed and test-time-augmentation wrappers."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = cast(nn.Module, model.module)
    return model


def has_our_parts(model: nn.Module) -> bool:
    """Whether the loading rules of this project apply to a model: it has a backbone, neck or head of ours."""
    return any(type(module).__module__.startswith('mmlightvit.models.') for module in model.modules())


def _has_another_backbone(model: nn.Module) -> bool:
    """Whether parts of ours stand behind a backbone that is no LightViT; then a file's keys are taken as they are."""
    from mmlightvit.models.backbones import LightViT

    backbones = [part for name, part in model.named_modules() if name.rpartition('.')[2] == 'backbone']
    return bool(backbones) and not any(isinstance(part, LightViT) for part in model.modules())


def _backbone_prefix(expected: Mapping[str, Tensor]) -> str | None:
    """Where the model's LightViT is: '' for a bare one, None for none or several."""
    prefixes = {key[: key.index('stages.')] for key in expected if 'stages.0.blocks.0.norm1.weight' in key}
    return prefixes.pop() if len(prefixes) == 1 else None


def _select(
    source: Source, expected: Mapping[str, Tensor], report: LoadReport, starting: bool, prefix: str | None
) -> tuple[dict[str, Tensor], bool]:
    """The tensors of the file that are meant for the model, under its names, and whether they are a backbone alone."""
    beginnings = sorted({key.partition('.')[0] for key in source.state})
    backbone_prefix, kind = _backbone_prefix(expected), kind_of(expected)
    if prefix is not None and (backbone_prefix is None or prefix.rstrip('.') != 'backbone'):
        prefix = prefix.rstrip('.') + '.'
        part = {key.removeprefix(prefix): value for key, value in source.state.items() if key.startswith(prefix)}
        if not part:
            found = shorten(f'{beginning}.' for beginning in beginnings)
            raise UserError(f'{report.name}: has nothing under the prefix {prefix}; it has {found}.')
        if backbone_prefix == '':
            _leave_out_unbuilt(part, '', expected, report)
        return part, backbone_prefix == ''
    if kind == 'other' or (kind != 'backbone' and (source.kind == kind or not starting)):
        return dict(source.state), False
    if source.architecture is None:
        raise UserError(f'{report.name}: holds no LightViT; its keys start with {shorten(beginnings)}.')
    if source.kind != 'backbone' and (rest := [key for key in source.state if not key.startswith('backbone.')]):
        report.left_out['not part of the backbone'] = rest
    backbone = {f'{backbone_prefix}{key}': value for key, value in source.backbone.items()}
    _leave_out_unbuilt(backbone, backbone_prefix or '', expected, report)
    return backbone, True


def _leave_out_unbuilt(
    incoming: dict[str, Tensor], prefix: str, expected: Mapping[str, Tensor], report: LoadReport
) -> None:
    """Leave out the output norms and late stages that the model lacks."""
    stages = {key.removeprefix(prefix).split('.')[1] for key in expected if key.startswith(f'{prefix}stages.')}
    for key in list(incoming):
        name = key.removeprefix(prefix)
        if _OUTPUT_NORM.fullmatch(name) and key not in expected:
            reason = 'output norms that the model has not'
        elif name.startswith('stages.') and int(name.split('.')[1]) >= len(stages):
            reason = 'stages behind the last output'
        else:
            continue
        report.left_out.setdefault(reason, []).append(key)
        del incoming[key]


def _declared_fresh(
    expected: Mapping[str, Tensor], incoming: Mapping[str, Tensor], alone: str | None
) -> dict[str, str]:
    """Parameters that may stay as initialised when training starts, with the reason.

    ``alone`` is the kind of file where only its backbone is loaded.
    """
    prefix = _backbone_prefix(expected)
    if prefix is None:
        return {}
    reasons = {}
    if alone:
        reasons = {key: f'a {alone} brings its backbone' for key in expected if not key.startswith(prefix)}
    norms = [key for key in expected if key.startswith(prefix) and _OUTPUT_NORM.fullmatch(key.removeprefix(prefix))]
    if not any(key in incoming for key in norms):
        reasons |= dict.fromkeys(norms, 'the file has no output norms')
    key = f'{prefix}global_token'
    if key in incoming and key in expected:
        theirs, ours = incoming[key].shape, expected[key].shape
        if len(theirs) == 3 and theirs[1] != ours[1] and (theirs[0], theirs[2]) == (ours[0], ours[2]):
            reasons[key] = f'the file has {theirs[1]} global tokens and the model {ours[1]}'
    return reasons


def _misfit(
    name: str, source: Source, differences: dict[str, list[str]], starting: bool, expected: Mapping[str, Tensor]
) -> UserError:
    """The error of a file that does not fit: how a person would say it, then the keys."""
    found = {what: keys for what, keys in differences.items() if keys}
    total = ', '.join(f'{len(keys)} {what}' for what, keys in found.items())
    listed = '; '.join(f'{what}: {shorten(keys)}' for what, keys in found.items())
    said = _in_words(source, expected)
    hint = _hint(source, differences, starting, expected)
    return UserError(f'{name} ({source}) does not fit the model, which is untouched: {said}{total}. {listed}.{hint}')


def _in_words(source: Source, expected: Mapping[str, Tensor]) -> str:
    """What the file is and the model is not."""
    theirs, ours = source.kind, kind_of(expected)
    if theirs != ours and not {theirs, ours} & {'other', 'headless', 'backbone'}:
        return f'it is of a {theirs}, and the model is a {ours}; '
    classes, wanted = number_of_classes(source.state), number_of_classes(expected)
    if theirs == ours and classes and wanted and classes != wanted:
        return f'it is for {classes} classes, and the model for {wanted}; '
    return ''


def _hint(source: Source, differences: dict[str, list[str]], starting: bool, expected: Mapping[str, Tensor]) -> str:
    """What to do about the differences that people meet."""
    missing, reshaped = differences['missing'], differences['of another shape']
    theirs = source.architecture
    if not starting and any('global_token' in key for key in reshaped):
        tokens = theirs.num_global_tokens if theirs else 0
        return f' Set model.backbone.num_global_tokens={tokens} to use the file as it is.'
    stems = [key.partition(' ')[0] for key in reshaped if 'patch_embed.' in key]
    if theirs and stems:
        prefix = _backbone_prefix(expected) or ''
        ours = architecture_of({key.removeprefix(prefix): value for key, value in expected.items()})
        if theirs.embed_dims == ours.embed_dims and theirs.in_channels != ours.in_channels:
            return (
                f' The file is for pictures of {theirs.in_channels} bands, the model for {ours.in_channels}: set '
                f'model.backbone.in_channels={theirs.in_channels}, or train {", ".join(stems)} afresh, by naming it in '
                'load_fresh beside load_from=FILE.'
            )
        return f' The file is a {theirs}: set model.backbone.arch to it, or take another file.'
    if source.kind not in ('other', kind_of(expected)) and not starting:
        return f' A {source.kind} can start training, through init_cfg or load_from, but not be tested as it is.'
    heads = [key for key in [*missing, *reshaped] if 'backbone.' not in key]
    if starting and heads and len(heads) == len(missing) + len(reshaped):
        return ' To initialise a new head afresh, name the beginnings of these parameters in load_fresh.'
    return ''
