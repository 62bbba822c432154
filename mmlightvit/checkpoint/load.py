# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Loading into a model: every difference is declared, or an error that names the keys.

Declared, always: published names; position-bias tables of another window size, resized.
Declared, where a backbone is loaded alone: what is not the backbone is left out, and so are output norms and stages
that the model has not.
Declared, when training starts from the file: the model's output norms where the file has none at all, and global
tokens of another number, stay as initialised.
"""

from __future__ import annotations

import logging
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from mmlightvit.checkpoint.identify import Source, find_state_dict, kind_of, recognise, shorten
from mmlightvit.durable.safe_loading.read import read_checkpoint
from mmlightvit.errors import UserError


@dataclass
class LoadReport:
    """What loading a checkpoint did.

    Attributes:
        name: The file.
        source: What it was recognised as.
        loaded: How many tensors went into the model.
        left_out: Keys of the file that the model does not take, by reason.
        fresh: Parameters of the model that stay as initialised, by reason.
        resized: Position-bias tables brought to the model's window size.
    """

    name: str
    source: str
    loaded: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    fresh: dict[str, list[str]] = field(default_factory=dict)
    resized: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f'Loaded {self.loaded} tensors from {self.name} ({self.source}).']
        for reason, keys in self.fresh.items():
            lines.append(f'  initialised afresh, {reason} ({len(keys)}): {", ".join(keys)}')
        for reason, keys in self.left_out.items():
            lines.append(f'  left out, {reason} ({len(keys)}): {", ".join(keys)}')
        if self.resized:
            lines.append(f'  resized to the window of the model ({len(self.resized)}): {", ".join(self.resized)}')
        return '\n'.join(lines)

    def log(self) -> None:
        """Log it, as a warning where the model got something else than the file's own tensors."""
        level = logging.WARNING if self.fresh or self.resized else logging.INFO
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
        fresh: Beginnings of parameter names that stay as initialised where their shapes differ or the file has them
            not, such as a head for another number of classes. Each has to be needed.
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
    complete, report = plan(model, checkpoint, starting=starting, prefix=prefix, fresh=fresh, name=name)
    model.load_state_dict(complete)
    report.log()
    return report


def plan(
    model: nn.Module,
    checkpoint: Mapping[str, Any],
    *,
    starting: bool = False,
    prefix: str | None = None,
    fresh: Sequence[str] = (),
    name: str | None = None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """A state dict that the model loads strictly, and what becomes of each key. Arguments as in :func:`load_into`."""
    name = name or 'checkpoint'
    fresh = (fresh,) if isinstance(fresh, str) else fresh
    weights = find_state_dict(checkpoint, name)
    foreign = _has_another_backbone(model)
    # Another backbone may have stages too, which would be taken for those of the published files.
    source = Source('own', 'other', weights, None) if foreign else recognise(weights, name)
    expected = model.state_dict()
    report = LoadReport(name, str(source))
    incoming, alone = _select(source, {} if foreign else expected, report, starting, prefix, name)
    if alone:
        _leave_out_unbuilt(incoming, expected, report)
    complete: OrderedDict[str, Tensor] = OrderedDict()
    complete._metadata = expected._metadata  # type: ignore[attr-defined]
    missing, reshaped = [], []
    declared = _declared_fresh(expected, incoming, source.kind if alone else None) if starting and not foreign else {}
    for key, present in expected.items():
        value = incoming.pop(key, None)
        if value is not None and value.shape == present.shape:
            complete[key] = value
            report.loaded += 1
            continue
        beginning = next((b for b in fresh if key.startswith(b)), None)
        reason = declared.get(key) or (f'declared by {beginning}' if beginning else None)
        resized = _resize_table(key, value, present)
        if reason is not None:
            complete[key] = present
            report.fresh.setdefault(reason, []).append(key)
        elif resized is not None:
            complete[key] = resized
            report.loaded += 1
            report.resized.append(f'{key} {_shape(value)} -> {_shape(present)}')
        elif value is None:
            missing.append(key)
        else:
            reshaped.append(f'{key} {_shape(value)}, expected {_shape(present)}')
    for key in [key for key in incoming if key.startswith(tuple(fresh))]:
        report.left_out.setdefault('declared', []).append(key)
        del incoming[key]
    _check_fresh_is_needed(fresh, report, name)
    _raise_on_differences(name, source, missing, list(incoming), reshaped, starting, expected)
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
    source: Source, expected: Mapping[str, Tensor], report: LoadReport, starting: bool, prefix: str | None, name: str
) -> tuple[dict[str, Tensor], bool]:
    """The tensors of the file that are meant for the model, under its names, and whether they are a backbone alone."""
    backbone_prefix = _backbone_prefix(expected)
    if prefix is not None and (backbone_prefix is None or prefix.rstrip('.') != 'backbone'):
        prefix = prefix.rstrip('.') + '.'
        part = {key.removeprefix(prefix): value for key, value in source.state.items() if key.startswith(prefix)}
        if not part:
            beginnings = sorted({key.partition('.')[0] + '.' for key in source.state})
            raise UserError(f'{name}: has nothing under the prefix {prefix}; it has {shorten(beginnings)}.')
        return part, backbone_prefix == ''
    kind = kind_of(expected)
    if kind == 'other' or (kind != 'backbone' and (source.kind == kind or not starting)):
        return dict(source.state), False
    if source.architecture is None:
        beginnings = sorted({key.partition('.')[0] for key in source.state})
        raise UserError(f'{name}: holds no LightViT; its keys start with {shorten(beginnings)}.')
    backbone = source.backbone
    rest = [] if source.kind == 'backbone' else [key for key in source.state if not key.startswith('backbone.')]
    if rest:
        report.left_out['not part of the backbone'] = rest
    return {f'{backbone_prefix}{key}': value for key, value in backbone.items()}, True


def _leave_out_unbuilt(incoming: dict[str, Tensor], expected: Mapping[str, Tensor], report: LoadReport) -> None:
    """Leave out the output norms and late stages that the model has not."""
    prefix = _backbone_prefix(expected) or ''
    built = {key.removeprefix(prefix).split('.')[1] for key in expected if key.startswith(f'{prefix}stages.')}
    for key in list(incoming):
        parts = key.removeprefix(prefix).split('.')
        if _is_output_norm(key.removeprefix(prefix)) and key not in expected:
            reason = 'output norms that the model has not'
        elif parts[0] == 'stages' and parts[1] not in built and int(parts[1]) >= len(built):
            reason = 'stages behind the last output'
        else:
            continue
        report.left_out.setdefault(reason, []).append(key)
        del incoming[key]


def _declared_fresh(
    expected: Mapping[str, Tensor], incoming: Mapping[str, Tensor], alone: str | None
) -> dict[str, str]:
    """Parameters that may stay as initialised when training starts, with the reason.

    Args:
        expected: The model's state.
        incoming: What the file brings.
        alone: The kind of file, where only its backbone is loaded.
    """
    prefix = _backbone_prefix(expected)
    if prefix is None:
        return {}
    reasons = {}
    if alone:
        reasons = {key: f'a {alone} brings its backbone' for key in expected if not key.startswith(prefix)}
    norms = [key for key in expected if key.startswith(prefix) and _is_output_norm(key.removeprefix(prefix))]
    if not any(key in incoming for key in norms):
        reasons.update((key, 'the file has no output norms') for key in norms)
    key = f'{prefix}global_token'
    if key in incoming and key in expected:
        theirs, ours = incoming[key].shape, expected[key].shape
        if len(theirs) == 3 and theirs[1] != ours[1] and (theirs[0], theirs[2]) == (ours[0], ours[2]):
            reasons[key] = f'the file has {theirs[1]} global tokens and the model {ours[1]}'
    return reasons


def _is_output_norm(key: str) -> bool:
    head, _, tail = key.partition('.')
    return head.startswith('norm') and head[4:].isdigit() and tail in ('weight', 'bias')


def _resize_table(key: str, value: Tensor | None, expected: Tensor) -> Tensor | None:
    """A position-bias table of another window size, (2 S - 1) ** 2 rows, interpolated over its two offsets."""
    if value is None or not key.endswith('.relative_position_bias_table') or value.dim() != 2:
        return None
    old, new = math.isqrt(value.shape[0]), math.isqrt(expected.shape[0])
    if old**2 != value.shape[0] or old % 2 == 0 or value.shape[1] != expected.shape[1]:
        return None
    grid = value.float().T.reshape(1, -1, old, old)
    if new == 1:
        return value[old**2 // 2].unsqueeze(0)
    # Corners on corners: the offset 0 stays in the middle and the farthest offset stays the farthest.
    return F.interpolate(grid, size=(new, new), mode='bicubic', align_corners=True)[0].flatten(1).T.to(value.dtype)


def _shape(value: Tensor | None) -> str:
    return str(list(value.shape)) if value is not None else 'none'


def _check_fresh_is_needed(fresh: Sequence[str], report: LoadReport, name: str) -> None:
    touched = [key for keys in (*report.fresh.values(), *report.left_out.values()) for key in keys]
    idle = [beginning for beginning in fresh if not any(key.startswith(beginning) for key in touched)]
    if idle:
        raise UserError(
            f'load_fresh: {", ".join(idle)} match no parameter that differs from {name}; take them out or mend them.'
        )


def _raise_on_differences(
    name: str,
    source: Source,
    missing: list[str],
    unexpected: list[str],
    reshaped: list[str],
    starting: bool,
    expected: Mapping[str, Tensor],
) -> None:
    differences = {'missing': missing, 'unexpected': unexpected, 'of another shape': reshaped}
    if not any(differences.values()):
        return
    total = ', '.join(f'{len(keys)} {what}' for what, keys in differences.items() if keys)
    full = ''.join(f'\n  {what} ({len(keys)}): {", ".join(keys)}' for what, keys in differences.items() if keys)
    print_log(f'{name} does not fit the model:{full}', logger='current', level=logging.ERROR)
    listed = '; '.join(f'{what}: {shorten(keys)}' for what, keys in differences.items() if keys)
    raise UserError(
        f'{name} ({source}) does not fit the model, which is untouched: {total}. {listed}.'
        + _hint(source, reshaped, missing, starting, expected)
    )


def _hint(
    source: Source, reshaped: list[str], missing: list[str], starting: bool, expected: Mapping[str, Tensor]
) -> str:
    """What to do about the differences that people meet."""
    tokens = source.architecture.num_global_tokens if source.architecture else 0
    if not starting and any('global_token' in key for key in reshaped):
        return f' Set model.backbone.num_global_tokens={tokens} to use the file as it is.'
    if source.architecture and any('patch_embed.' in key for key in reshaped):
        return f' The file is a {source.architecture}: set model.backbone.arch to it, or take another file.'
    if source.kind not in ('other', kind_of(expected)) and not starting:
        return f' A {source.kind} can start training, through init_cfg or load_from, but not be tested as it is.'
    heads = [key for key in [*missing, *reshaped] if 'backbone.' not in key]
    if starting and heads and len(heads) == len(missing) + len(reshaped):
        return ' To initialise a new head afresh, name the beginnings of these parameters in load_fresh.'
    return ''
