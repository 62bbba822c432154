# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The decisions of resuming: which checkpoint a run goes on from, and whether the run is still the same one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from mmlightvit.durable.find import LAST_CHECKPOINT, find_newest
from mmlightvit.durable.seal import verify
from mmlightvit.errors import AllRanksError, UserError, listed


class ResumeRequest(NamedTuple):
    """The arguments of the runner that ask it to go on.

    Attributes:
        checkpoint: ``load_from``: the user's choice of a file; None leaves the choice to the runner.
        resume: Whether to go on at all, instead of starting from the weights.
    """

    checkpoint: str | None
    resume: bool

    @property
    def same_run(self) -> bool:
        """Whether the run of the work directory goes on, and no newer checkpoint of it is left behind."""
        return self.resume and self.checkpoint is None


class Choice(NamedTuple):
    """The outcome of :func:`choose_checkpoint`.

    Attributes:
        path: The checkpoint to go on from; None to start from the beginning.
        messages: Sentences for the log.
        problem: Why the run cannot start; None if it can.
    """

    path: str | None
    messages: list[str]
    problem: str | None = None


class RunShape(TypedDict):
    """What an iteration of a run means: ``meta['shape_of_run']`` of its checkpoints, a file format.

    Attributes:
        world_size: Number of processes.
        batch_size: Samples in a batch of one process; 0 where the batch sampler does not say.
        accumulative_counts: Iterations whose gradients are added for one step of the optimizer.
        samples: Length of the training set.
        batches: Batches of one process in a pass over the training set.
    """

    world_size: int
    batch_size: int
    accumulative_counts: int
    samples: int
    batches: int


def choose_checkpoint(request: ResumeRequest, work_dir: str, checkpoint_dir: str) -> Choice:
    """The checkpoint that a run goes on from: the one asked for if it is intact, else the newest intact one.

    Args:
        request: What was asked for; ``request.resume`` is true.
        work_dir: Directory of the run.
        checkpoint_dir: Directory of its checkpoints.
    """
    if request.checkpoint is not None:
        problem = _problem_of(request.checkpoint)
        return Choice(request.checkpoint, []) if problem is None else Choice(None, [], problem)
    found = find_newest(checkpoint_dir)
    messages = [f'Skipped for resuming: {sentence}.' for sentence in found.skipped]
    if found.path is not None:
        return Choice(str(found.path), [*messages, f'Resuming from {found.path}, the newest intact checkpoint.'])
    note = Path(work_dir) / LAST_CHECKPOINT
    if note.is_file() and '://' in note.read_text():
        return Choice(note.read_text().strip(), messages)
    if found.skipped:
        problem = (
            f'no intact checkpoint in {checkpoint_dir} ({"; ".join(found.skipped)}); move the damaged files away and '
            'start without --resume, or resume from another file'
        )
        return Choice(None, messages, problem)
    return Choice(None, [f'No checkpoint in {checkpoint_dir} yet: the run starts from the beginning.'])


def _problem_of(path: str) -> str | None:
    if '://' in path:
        return None
    if not Path(path).is_file():
        return f'the checkpoint to resume from does not exist: {path}'
    try:
        verify(path)
    except UserError as error:
        problem = str(error)
    except OSError as error:  # of this process alone; the others wait for what it has chosen
        problem = f'{path} cannot be read: {error.strerror}'
    else:
        return None
    return f'{problem}. Plain --resume takes the newest intact one of the work directory'


def require_same_model(name: str, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with another model, before anything else is compared.

    Args:
        name: The checkpoint.
        saved: Its ``state_dict``.
        now: That of the config's model.

    Raises:
        AllRanksError: The parts of the model or the shapes of parameters are others.
    """
    saved = {key.removeprefix('module.'): value for key, value in saved.items()}
    parts = [', '.join(sorted({key.partition('.')[0] for key in state})) for state in (saved, now)]
    if parts[0] != parts[1]:
        others = [f'its parts are {parts[0]}; those of the config are {parts[1]}']
    else:  # names that only one of them has are left to the loading, which translates names of earlier versions
        shapes = {
            key: [list(getattr(state[key], 'shape', ())) for state in (saved, now)] for key in now if key in saved
        }
        others = [f'{key} {theirs}, not {ours}' for key, (theirs, ours) in shapes.items() if theirs != ours]
    if others:
        raise AllRanksError(
            f"{name} is a checkpoint of another model than the config's: {listed(others, 4, '; ')}. A run goes on "
            'with the model that it began with; to start a new one from these weights use load_from, without --resume'
        )


def require_same_run(
    meta: Mapping[str, Any], now: RunShape, *, by_epoch: bool, grouping_sampler: str | None = None
) -> str | None:
    """Refuse to resume with another total batch or data set, under which iterations mean something else.

    Args:
        meta: ``meta`` of the checkpoint.
        now: The shape of the run that shall go on.
        by_epoch: Whether epochs are counted, not iterations.
        grouping_sampler: Name of the batch sampler, where it groups the images of each process.

    Returns:
        What to say about a difference that is accepted; None if there is none.

    Raises:
        AllRanksError: The run is another one; the message says what to resume it with.
    """
    was = meta.get('shape_of_run')
    if was is None:
        return 'The checkpoint does not say how the run was set up; it was written by another program.'
    if was == now:
        return None
    changes = '; '.join(f'{key} {was.get(key)} -> {value}' for key, value in now.items() if was.get(key) != value)
    total_was = was['world_size'] * was['batch_size'] * was['accumulative_counts']
    total_now = now['world_size'] * now['batch_size'] * now['accumulative_counts']
    same_steps = was['accumulative_counts'] == now['accumulative_counts'] and was['batches'] == now['batches']
    if was['samples'] != now['samples'] or total_was != total_now or not same_steps:
        raise AllRanksError(
            f'cannot resume: {changes}. Iterations and schedule would not mean the same. Resume with processes x '
            f'train_dataloader.batch_size x accumulative_counts = {total_was} and {was["samples"]} samples, or start a '
            'new run from the weights with load_from'
        )
    # The same batches, split over the processes in another way.
    if grouping_sampler is None:
        same_images = "batches hold the same images as before, but for those that fill up an epoch's last one"
    elif by_epoch and meta['iter'] == meta['epoch'] * was['batches']:
        same_images = 'epochs hold the same images as before, in other batches'
    else:
        raise AllRanksError(
            f'cannot resume: {changes}. {grouping_sampler} groups the images of each process, so the rest of this '
            f'pass over the data would be other images. Resume with {was["world_size"]} processes, from a checkpoint '
            'at the end of an epoch, or start a new run from the weights with load_from'
        )
    return (
        f'The run is resumed with another split over processes ({changes}): {same_images}. Sums are rounded otherwise, '
        'so it will not repeat the uninterrupted run bit for bit.'
    )


#: What a schedule counts or derives, which are no settings.
_NO_SETTINGS = {'last_step', '_global_step', 'verbose', '_last_value', 'param_name', 'base_values', 'total_iters'}
_WARM_UP = ('Linear', 'Constant')


def overruled(wrapper: Any, schedules: Any, checkpoint: Mapping[str, Any]) -> list[str]:
    """The settings of the config that the checkpoint replaces, each as ``name: the checkpoint's, not the config's``.

    Args:
        wrapper: The optimizer wrapper, built and not yet resumed.
        schedules: The parameter schedulers, a list; other forms are not compared.
        checkpoint: What is resumed from.
    """
    found: dict[str, None] = {}
    saved = checkpoint['optimizer'].get('param_groups')
    for ours, theirs in zip(getattr(wrapper, 'param_groups', None) or (), saved or ()):
        for key, value in ours.items():
            # With a schedule, `lr` has moved on, and what it began with is `initial_lr`.
            is_setting = key != 'params' and not (key == 'lr' and 'initial_lr' in ours)
            if is_setting and key in theirs and theirs[key] != value:
                name = key.removeprefix('initial_')
                found.setdefault(f'optim_wrapper.optimizer.{name}: {theirs[key]}, not {value}')
    states = checkpoint.get('param_schedulers')
    if not isinstance(states, list) or not isinstance(schedules, list):
        return list(found)
    if len(states) != len(schedules):
        found.setdefault(f'param_scheduler: {len(states)} schedules, not {len(schedules)}')
    for number, (schedule, theirs) in enumerate(zip(schedules, states)):
        for key, value in schedule.state_dict().items():
            if key not in _NO_SETTINGS and key in theirs and theirs[key] != value:
                was, now = (list(item) if isinstance(item, Counter) else item for item in (theirs[key], value))
                found.setdefault(f'param_scheduler.{number}.{key}: {was}, not {now}')
    return list(found)


def require_schedule(checkpoint: Mapping[str, Any], length: int, batches: int | None, schedules: Any) -> None:
    """Refuse to go on longer than the run was meant to be, where its schedule ends with it.

    Args:
        checkpoint: What is resumed from; its schedules go on, not the config's.
        length: Epochs of the run now, or iterations.
        batches: Batches of an epoch; None where the run counts iterations.
        schedules: The parameter schedulers.

    Raises:
        AllRanksError: The rest would be trained at the rate that the schedule has ended with.
    """
    was, states = checkpoint['meta'].get('length_of_run'), checkpoint.get('param_schedulers')
    if was is None or length <= was or not isinstance(states, list) or not isinstance(schedules, list):
        return
    for schedule, state in zip(schedules, states):
        kind = type(schedule).__name__
        end = state['end'] / (batches if batches and not schedule.by_epoch else 1)
        if end < length and not kind.startswith(_WARM_UP):
            setting, unit = ('max_iters', 'iterations') if batches is None else ('max_epochs', 'epochs')
            raise AllRanksError(
                f'cannot resume to {length} {unit}: the checkpoint goes on with its own {kind}, which ends after '
                f'{end:.10g}, and the rest would be trained at the rate it has ended with. Resume with '
                f'train_cfg.{setting}={was}, or start a new run from the weights, with load_from=FILE and no --resume'
            )
