# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Data that depends on the seed and the position in the run alone: not on workers, prefetching or interruptions.

Each drawn index carries the key of its draw (epoch, position in the epoch over all ranks). Whoever loads the sample
seeds Python's, NumPy's and torch's random numbers with (seed, key) first, so an augmentation comes out the same in
any worker. A run is continued by passing over the batches it has had; only indices are drawn for that.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, Sampler

from mmlightvit.registry import DATA_SAMPLERS, DATASETS


def seed_all(purpose: str, *key: int) -> None:
    """Seed Python's, NumPy's and torch's global random numbers from a name and some integers.

    Args:
        purpose: What the numbers are for, so that no two purposes share a key.
        *key: Non-negative integers; distinct keys give unrelated random numbers.
    """
    digest = hashlib.blake2b(repr((purpose, *key)).encode(), digest_size=20).digest()
    random.seed(int.from_bytes(digest[:8], 'little'))
    np.random.seed(int.from_bytes(digest[8:12], 'little'))
    torch.manual_seed(int.from_bytes(digest[12:], 'little', signed=True))


class Draw(int):
    """A sample's index that knows the draw it came from.

    Attributes:
        epoch: Pass over the data set.
        position: Place in the order of that pass, over all ranks.
    """

    epoch: int
    position: int

    def __new__(cls, index: int, epoch: int, position: int) -> Draw:
        draw = super().__new__(cls, index)
        draw.epoch = epoch
        draw.position = position
        return draw

    def __reduce__(self) -> tuple:
        return Draw, (int(self), self.epoch, self.position)


@DATA_SAMPLERS.register_module()
class DrawSampler(Sampler):
    """Any sampler, with its indices as :class:`Draw`.

    The key is the position, not the index, because a sampler may repeat a sample in one pass and mean to augment it
    differently (repeated augmentation).

    Args:
        sampler: Config of the sampler.
        dataset: The data set.
        seed: Seed of the sampler, the same on every rank.
    """

    def __init__(self, sampler: dict, dataset: Any, seed: int) -> None:
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.dataset = dataset
        self.epoch = 0
        self._rank, self._world_size = get_dist_info()

    def __iter__(self) -> Iterator[Draw]:
        for place, index in enumerate(self.sampler):
            yield Draw(index, self.epoch, place * self._world_size + self._rank)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Go to another pass, in samplers that know passes."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(Sampler):
    """Any batch sampler, able to start after some batches and to go on over the passes.

    Args:
        sampler: The sampler.
        batch_size: Samples in a batch of one rank.
        batch_sampler: Config of the batch sampler; None for torch's.
        drop_last: Leave out a last smaller batch; for torch's batch sampler.
        endless: Whether the pass after the last one follows at once (iteration-based training).
    """

    def __init__(
        self,
        sampler: DrawSampler,
        batch_size: int,
        batch_sampler: dict | None = None,
        drop_last: bool = False,
        endless: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.endless = endless
        self.batch_sampler: Any
        if batch_sampler is None:
            self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        else:
            self.batch_sampler = DATA_SAMPLERS.build(
                batch_sampler, default_args=dict(sampler=sampler, batch_size=batch_size)
            )
        self._skip = 0

    def skip(self, batches: int) -> None:
        """Begin the next iteration after ``batches`` batches of the epoch or, if endless, of the run."""
        self._skip = batches

    def __iter__(self) -> Iterator[list[Draw]]:
        skip, self._skip = self._skip, 0
        drawn = 0
        epoch = 0
        while True:
            if self.endless:
                self.sampler.set_epoch(epoch)
            before = drawn
            for batch in self.batch_sampler:
                drawn += 1
                if drawn > skip:
                    yield batch
            if not self.endless:
                return
            if drawn == before:
                raise ValueError(
                    f'the sampler gives no batch of {self.batch_size}: the data set has {len(self.sampler)} samples; '
                    'add data or reduce train_dataloader.batch_size'
                )
            epoch += 1

    def __len__(self) -> int:
        return len(self.batch_sampler)


class SeededDataset:
    """A data set whose samples depend on (seed, draw) alone.

    Everything else, attributes set from outside included, is the wrapped data set's.

    Args:
        dataset: Config of the data set, or a data set.
        seed: Seed of the augmentation, the same on every rank.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        # Not by assignment, which goes to the wrapped data set.
        self.__dict__['dataset'] = dataset
        self.__dict__['augmentation_seed'] = seed

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, Draw):
            seed_all('sample', self.augmentation_seed, index.epoch, index.position)
            index = int(index)
        return self.dataset[index]

    def __getitems__(self, indices: list[int]) -> list:
        # torch would find a wrapped data set's own method, and load the batch without the seeds.
        return [self[index] for index in indices]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__') or 'dataset' not in self.__dict__:  # while being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)


def exact_dataloader(config: dict, seed: int, endless: bool) -> dict:
    """A data loader's config with the data set, the sampler and the batch sampler wrapped as above.

    Args:
        config: ``train_dataloader``; not changed.
        seed: The run's seed, the same on every rank.
        endless: Whether iterations, not epochs, are counted.
    """
    config = dict(config)
    config['dataset'] = dict(type=SeededDataset, dataset=config['dataset'], seed=seed)
    config['sampler'] = dict(type=DrawSampler, sampler=config['sampler'], seed=seed)
    config['batch_sampler'] = dict(
        type=ResumableBatchSampler,
        batch_sampler=config.get('batch_sampler'),
        drop_last=config.pop('drop_last', False),
        endless=endless,
    )
    return config
