# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Which checkpoint of a work directory a run goes on from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmlightvit.durable.safe_loading.atomic import TEMPORARY_SUFFIX
from mmlightvit.durable.seal import DamagedCheckpoint, read_seal, require_plain_archive, verify

#: The note beside the checkpoints that names the last one.
LAST_CHECKPOINT = 'last_checkpoint'
#: Links to the last checkpoint and to the best one, for people and programs; no checkpoints of their own.
LAST_LINK, BEST_LINK = 'last.pth', 'best.pth'
_STOCK_NAME = re.compile(r'(?:interrupted_)?(?:epoch|iter)_(\d+)\.pth')


def checkpoint_dir(work_dir: str, default_hooks: Mapping[str, Any] | None) -> str:
    """Where a run's checkpoints are: in its work directory, unless its checkpoint hook has an ``out_dir``.

    Args:
        work_dir: Work directory.
        default_hooks: The runner's default hooks: configs, hooks, or None for one that is left out.
    """
    work_dir = os.path.abspath(work_dir)
    hook = (default_hooks or {}).get('checkpoint')
    out_dir = hook.get('out_dir') if isinstance(hook, Mapping) else getattr(hook, 'out_dir', None)
    if not out_dir or out_dir == work_dir:  # as MMEngine's hook decides
        return work_dir
    return os.path.join(out_dir, os.path.basename(work_dir))


class Found(NamedTuple):
    """The outcome of :func:`find_newest`.

    Attributes:
        path: The newest checkpoint that verifies; None if there is none.
        skipped: One sentence for each newer or unreadable checkpoint that was passed over.
    """

    path: Path | None
    skipped: list[str]


def find_newest(directory: str | os.PathLike) -> Found:
    """The newest checkpoint in ``directory`` that a run can be resumed from and that verifies.

    What is in the files decides, not their dates or the ``last_checkpoint`` note, so a copied or moved work directory
    is as good as the original: the run that began last, then the iteration. Files without a seal (written by stock
    MMEngine) count if they are called ``epoch_N.pth`` or ``iter_N.pth``, after all sealed ones.

    Args:
        directory: The work directory.
    """
    candidates, skipped = find_candidates(directory)
    for path in candidates:
        try:
            verify(path)
        except DamagedCheckpoint as error:
            skipped.append(str(error))
        except OSError as error:
            skipped.append(f'{path} cannot be read: {error.strerror}')
        else:
            return Found(path, skipped)
    return Found(None, skipped)


def find_candidates(directory: str | os.PathLike) -> tuple[list[Path], list[str]]:
    """The files that :func:`find_newest` chooses from, newest first and not yet verified, and why others are not."""
    sealed: list[tuple[int, int, int, float, Path]] = []
    foreign: list[tuple[int, float, Path]] = []
    skipped: list[str] = []
    for path in sorted(Path(directory).glob('*.pth')):
        if path.name in (LAST_LINK, BEST_LINK):
            continue
        try:
            seal = read_seal(path)
            if seal is not None:
                if seal.resumable:
                    sealed.append((seal.run, seal.iteration, seal.epoch, path.stat().st_mtime, path))
            elif match := _STOCK_NAME.fullmatch(path.name):
                require_plain_archive(path)
                foreign.append((int(match[1]), path.stat().st_mtime, path))
        except DamagedCheckpoint as error:
            skipped.append(str(error))
        except OSError as error:
            skipped.append(f'{path} cannot be read: {error.strerror}')
    candidates = [entry[-1] for entry in sorted(sealed, reverse=True)]
    candidates += [entry[-1] for entry in sorted(foreign, reverse=True)]
    return candidates, skipped


def goes_on(cfg: Mapping[str, Any]) -> bool:
    """Whether a run of a config finds a checkpoint to resume from, so that it reads no initial weights."""
    if not cfg.get('resume'):
        return False
    if cfg.get('load_from') is not None:
        return True
    note = Path(cfg['work_dir']) / LAST_CHECKPOINT
    return any(find_candidates(checkpoint_dir(cfg['work_dir'], cfg.get('default_hooks')))) or (
        note.is_file() and '://' in note.read_text()
    )


def remove_strays(directory: str | os.PathLike) -> list[Path]:
    """Remove the half-written files of killed processes, and name them; only while no other run writes there."""
    strays = list(Path(directory).glob(f'.*{TEMPORARY_SUFFIX}'))
    for stray in strays:
        stray.unlink(missing_ok=True)
    return strays
