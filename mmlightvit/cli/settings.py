# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``--cfg-options``: changing settings of a config, and refusing a key that nothing reads (docs/configs.md).

A key is known if the config has it, if it is an argument of the part that stands there (``type``), or if MMEngine reads
it there. Any other is taken only with a ``+`` in front.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmlightvit.cli.arguments import nearest
from mmlightvit.errors import UserError

_ANYTHING = frozenset({'*'})

#: Names that MMEngine reads and no signature says, by the place in a config, without the numbers of list items.
_ALSO_READ = {
    '': 'model_wrapper_cfg custom_imports runner_type tta_model tta_pipeline compile strategy',
    'dataloader': 'dataset sampler batch_sampler num_batch_per_epoch disable_subprocess_warning',
    'train_cfg': 'by_epoch',
    'optim_wrapper': 'constructor paramwise_cfg',
    'optim_wrapper.paramwise_cfg': 'custom_keys bias_lr_mult bias_decay_mult norm_decay_mult flat_decay_mult '
    'dwconv_decay_mult dcn_offset_lr_mult bypass_duplicate',
    'optim_wrapper.paramwise_cfg.custom_keys': '*',
    'auto_scale_lr': 'enable base_batch_size',
    'env_cfg': 'cudnn_benchmark mp_cfg dist_cfg resource_limit',
    'env_cfg.dist_cfg': 'backend init_backend timeout',
    'param_scheduler': 'convert_to_iter_based',
    'default_hooks.*': 'priority',
    'custom_hooks': 'priority',
    '*.norm_cfg': 'requires_grad',
}
#: Arguments that MMEngine gives by itself.
_GIVEN = frozenset({'cfg', 'runner', 'dataloader', 'evaluator', 'parameters', 'distributed'})


@functools.cache
def read_by_mmengine() -> Mapping[str, frozenset[str]]:
    """The names that MMEngine reads in dicts that name no ``type``, and beside the arguments of parts that do.

    The row of the top, ``''``, tells settings from variables of the file.
    """
    from mmengine import optim, runner
    from mmengine.utils.dl_utils import set_multi_processing
    from torch.nn.utils import clip_grad_norm_
    from torch.utils.data import DataLoader

    signatures = {
        '': [runner.Runner],
        'dataloader': [DataLoader],
        'train_cfg': [runner.EpochBasedTrainLoop, runner.IterBasedTrainLoop],
        'val_cfg': [runner.ValLoop],
        'test_cfg': [runner.TestLoop],
        'optim_wrapper': [optim.AmpOptimWrapper],
        'optim_wrapper.clip_grad': [clip_grad_norm_],
        'randomness': [runner.Runner.set_randomness],
        'env_cfg.mp_cfg': [set_multi_processing],
    }
    rows = {place: frozenset(names.split()) for place, names in _ALSO_READ.items()}
    for place, readers in signatures.items():
        names = frozenset({'type'} if place else ()).union(*map(parameters, readers)) - _GIVEN
        rows[place] = rows.get(place, frozenset()) | names
    return rows


#: Keys of configs before MMEngine, and what became of them.
_OLD_NAMES = {
    'data.samples_per_gpu': 'train_dataloader.batch_size',
    'data.workers_per_gpu': 'train_dataloader.num_workers',
    'total_epochs': 'train_cfg.max_epochs',
    'runner.max_epochs': 'train_cfg.max_epochs',
    'runner.max_iters': 'train_cfg.max_iters',
    'evaluation.interval': 'train_cfg.val_interval',
    'checkpoint_config.interval': 'default_hooks.checkpoint.interval',
    'log_config.interval': 'default_hooks.logger.interval',
    'optimizer_config.grad_clip': 'optim_wrapper.clip_grad',
    'lr_config': 'param_scheduler',
    'seed': 'randomness.seed',
    'fp16': '--amp',
}


def change(cfg: Config, options: Mapping[str, str]) -> None:
    """Apply ``--cfg-options`` to a config.

    Args:
        cfg: The config; its file has been read, so that a variable of it is a setting no more.
        options: Dotted key to the text of its value; a ``+`` in front of a key takes it unchecked.

    Raises:
        UserError: A value cannot be read, or nothing reads a key.
    """
    values = {key.removeprefix('+'): parse_value(key, text) for key, text in options.items()}
    for key, text in options.items():
        if not key.startswith('+'):
            _Check(cfg, values, key, text).run()
    try:
        cfg.merge_from_dict(values)
    except (KeyError, TypeError, ValueError) as error:  # of a key with +
        raise UserError(f'--cfg-options cannot be applied: {error}') from error


# -- values -----------------------------------------------------------------------------------------------------------
def parse_value(key: str, text: str) -> Any:
    """A number, True, False, None, a text, or a list or tuple of these: ``1e-4``, ``(320,192)``, ``cat,dog``.

    Raises:
        UserError: It is a dict, or brackets are left open.
    """
    text = text.strip()
    if 'dict(' in text or '{' in text:
        raise UserError(
            f'--cfg-options {key}={text}: a value is a number, a text or a list of them, such as [1,2]; write a dict '
            f'into a config file, or change its keys one by one, such as {key.removeprefix("+")}.0.type=NAME'
        )
    if len(text) > 1 and text[0] == text[-1] and text[0] in '\'"':
        return text[1:-1]
    is_tuple = text.startswith('(')
    items = list(_items(key, text))
    if text[:1] + text[-1:] in ('()', '[]') and len(items) == 1:
        values = [parse_value(key, item) for item in _items(key, text[1:-1]) if item.strip()]
        return tuple(values) if is_tuple else values
    if len(items) > 1:
        return [parse_value(key, item) for item in items if item.strip()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {'true': True, 'false': False, 'none': None}.get(text.lower(), text)


def _items(key: str, text: str) -> Iterator[str]:
    """The parts between the commas that are in no bracket."""
    depth, start = 0, 0
    for index, letter in enumerate(text):
        depth += (letter in '([') - (letter in ')]')
        if letter == ',' and depth == 0:
            yield text[start:index]
            start = index + 1
        if depth < 0:
            break
    if depth:
        raise UserError(f'--cfg-options {key}={text}: the brackets do not match; write a list like [1,2]')
    yield text[start:]


# -- keys -------------------------------------------------------------------------------------------------------------
class _Check:
    """Follows one key down the config."""

    def __init__(self, cfg: Config, values: Mapping[str, Any], key: str, text: str) -> None:
        self.cfg, self.values, self.key, self.text = cfg, values, key, text

    def _line(self) -> str:
        return f'--cfg-options {self.key}={self.text}'

    def run(self) -> None:
        """Raise a :class:`UserError` if nothing reads the key."""
        names = self.key.split('.')
        if names[0] in self.cfg and names[0] not in read_by_mmengine()['']:
            self._refuse_variable(names)
        value: Any = dict(self.cfg.items())
        for depth, name in enumerate(names):
            here = '.'.join(names[:depth])
            if isinstance(value, (list, tuple)):
                if not (name.isdecimal() and int(name) < len(value)):
                    raise UserError(f'{self._line()}: {here} is a list, whose items are 0 to {len(value) - 1}')
                value = value[int(name)]
            elif not isinstance(value, Mapping):
                raise UserError(f'{self._line()}: {here} is {value!r} in the config and has no keys; set {here} itself')
            elif name in value:
                value = value[name]
            elif name == '_delete_':
                return
            else:
                known = self._readable(here, value)
                if name in known:
                    if '.'.join(names[: depth + 1]) not in read_by_mmengine():
                        return
                    value = {}
                    continue
                similar = nearest(name, known, 0.8)
                if not known >= _ANYTHING or similar:
                    self._refuse(names, depth, known - _ANYTHING)
                return

    def _said(self) -> str:
        return f'--cfg-options {self.key}={self.text}'

    def _readable(self, here: str, value: Mapping) -> frozenset[str]:
        """The names that something reads in the dict at ``here``; with ``'*'`` where it takes any."""
        kind = self.values.get(f'{here}.type', value.get('type') if here else None)
        place = '.'.join(name for name in here.split('.') if not name.isdecimal())
        parent, _, last = place.rpartition('.')
        known = frozenset(value) | {'type'}
        for row in (place, f'{parent}.*', f'*.{last}'):
            known |= read_by_mmengine().get(row, frozenset())
        if place.endswith('_dataloader'):
            return known | read_by_mmengine()['dataloader']
        if kind is None and place == 'optim_wrapper':
            kind = 'OptimWrapper'  # MMEngine's default
        if kind is None:
            return known
        parts = [kind] if not isinstance(kind, str) else _find(kind, self.cfg)
        return known.union(*(parameters(part) for part in parts))

    def _refuse(self, names: list[str], depth: int, known: Iterable[str]) -> None:
        """Nothing reads the name at ``depth``: say what may be meant."""
        meant = _OLD_NAMES.get(self.key)
        similar = nearest(names[depth], known)
        paths = [path for path, _ in _walk(dict(self.cfg.items()))]
        if meant is None and similar is not None:
            meant = '.'.join([*names[:depth], similar, *names[depth + 1 :]])
        if meant is None or (depth == 0 and self.key not in _OLD_NAMES):
            ending = next((path for path in paths if path.endswith(f'.{self.key}')), None)
            meant = ending or meant or (nearest(self.key, paths) if depth == 0 else None)
        hint = (
            f'; nearest: {meant}'
            if meant
            else f'; there are {", ".join(sorted(set(known) - {"type"}))}'
            if depth
            else ''
        )
        part = '.'.join(names[: depth + 1])
        raise UserError(f'{self._line()}: nothing reads {part}{hint} (+{self.key}={self.text} sets it all the same)')

    def _refuse_variable(self, names: list[str]) -> None:
        """A variable of the file: name the settings that have its value."""
        rest = '.'.join(names[1:])
        variable = self.cfg[names[0]]
        settings = {key: value for key, value in self.cfg.items() if key in read_by_mmengine()['']}
        made = [path for path, value in _walk(settings) if _is_made_from(variable, names[0], path, value)]
        named = [path for path in made if nearest(path.rpartition('.')[2], names[:1]) or 'scheduler' in path]
        places = [f'{path}.{rest}' if rest else path for path in (named or made)[:4]]
        if names[0] == 'data_root':
            places.insert(0, 'all of them by --data-root DIR')
        hint = f'; settings with its value: {", ".join(places)}' if places else ''
        raise UserError(f'{self._line()}: {names[0]} is a variable of the config file, which has been read{hint}')


def _is_made_from(variable: Any, name: str, path: str, value: Any) -> bool:
    """Whether a setting has the value of a variable, or begins with it; 0 and 1 say too little without the name."""
    if isinstance(variable, str) and isinstance(value, str) and variable:
        return value.startswith(variable)
    return type(value) is type(variable) and value == variable and (path.endswith(f'.{name}') or variable not in (0, 1))


def _walk(value: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config, with its value."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    for name, item in value.items() if isinstance(value, Mapping) else ():
        yield f'{prefix}{name}', item
        yield from _walk(item, f'{prefix}{name}.')


def parameters(kind: Any) -> frozenset[str]:
    """The names of the arguments of a class or function, those of its bases where it hands arguments on to them.

    ``'*'`` is among them where an argument of any name ends nowhere.
    """
    makers = (
        [vars(cls)['__init__'] for cls in kind.__mro__ if '__init__' in vars(cls)] if inspect.isclass(kind) else [kind]
    )
    names: set[str] = set()
    for maker in makers:
        if maker is vars(object)['__init__']:
            break
        arguments = inspect.signature(maker).parameters.values()
        names.update(item.name for item in arguments if item.kind not in (item.VAR_POSITIONAL, item.VAR_KEYWORD))
        if not any(item.kind is item.VAR_KEYWORD for item in arguments):
            return frozenset(names - {'self'})
    return frozenset(names - {'self'}) | _ANYTHING


def _find(kind: str, cfg: Config) -> list[Any]:
    """The parts that a ``type`` may mean in the config's scope, in any of the registries."""
    from mmengine import registry
    from mmengine.utils import import_modules_from_strings

    from mmlightvit.cli.quiet import quiet_terminal
    from mmlightvit.registry import SCOPE
    from mmlightvit.toolboxes import import_toolbox

    with quiet_terminal() as quiet, quiet.imports():
        import_toolbox(cfg.default_scope)
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
        rooms = [room for room in vars(registry).values() if isinstance(room, registry.Registry)]
        # Our runner puts classes of this package in the place of MMEngine's, by the same names.
        names = [kind] if '.' in kind else [kind, f'{SCOPE}.{kind}']
        parts = [room.children.get(cfg.default_scope, room).get(name) for room in rooms for name in names]
    return [part for part in parts if part is not None]
