# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Run MMEngine's own published tests, unmodified, with MMEngine's classes and with those of mmlightvit/durable.

A test that passes with the first alone has to be named in the table of mmlightvit/durable/README.md, and no other.
"""

import argparse
import importlib.util
import os
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

README = Path(__file__).parents[2] / 'mmlightvit/durable/README.md'
FILES = ['test_hooks', 'test_runner', 'test_testing/test_runner_test_case.py', 'test_model/test_wrappers']
FILES += [f'test_optim/test_optimizer/test_optimizer_wrapper{name}.py' for name in ('', '_dict')]


def put_ours() -> None:
    """Let MMEngine's public names be durable's classes, for whoever imports them from here on."""
    from mmengine import hooks, model, optim, registry, runner
    from mmengine.testing import runner_test_case

    from mmlightvit.durable import checkpoint_hook, loops, nonfinite, wrappers
    from mmlightvit.durable.runner import Runner

    runner_test_case.Runner = runner.Runner = registry.RUNNERS.module_dict['Runner'] = Runner
    hooks.CheckpointHook = checkpoint_hook.CheckpointHook
    model.MMDistributedDataParallel = wrappers.DistributedDataParallel
    runner.EpochBasedTrainLoop, runner.IterBasedTrainLoop = loops.EpochBasedTrainLoop, loops.IterBasedTrainLoop
    optim.OptimWrapper, optim.AmpOptimWrapper = nonfinite.OptimWrapper, wrappers.AmpOptimWrapper
    # The tests' own cleaning stumbles over a link whose file it has removed, in the order that the disk lists them.
    checkpoint_hook.link = lambda checkpoint, name: None


def passing(tree: Path, ours: bool, options: list[str]) -> set[str]:
    """The tests that pass, by pytest's names."""
    import pytest
    from mmengine.testing._internal import MultiProcessTestCase as Processes

    class Passed(set):
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.when == 'call' and report.passed:
                self.add(report.nodeid)

    def check(self: Processes, elapsed: float, stock=Processes._check_return_codes) -> None:
        if any(process.exitcode != 0 for process in self.processes):
            stock(self, elapsed)  # which calls a test skipped that has ended well

    Processes._check_return_codes = check
    # A forked child has the classes that were put here; a spawned one would import MMEngine anew.
    Processes._spawn_processes = lambda self: self._start_processes(get_context('fork').Process)
    if ours:
        put_ours()
    os.chdir(tree)
    files = (f'tests/{name}' for name in FILES)
    pytest.main(['-p', 'no:cacheprovider', *files, *options], plugins=[passed := Passed()])
    return set(passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('tree', type=Path, help="MMEngine's source distribution, unpacked; other options are pytest's")
    args, options = parser.parse_known_args()
    if not (args.tree / 'tests/test_runner').is_dir() or importlib.util.find_spec('parameterized') is None:
        sys.exit(f'error: {args.tree}/tests/test_runner is not there, or the tests want: pip install parameterized')
    with ProcessPoolExecutor(1, get_context('spawn'), max_tasks_per_child=1) as pool:
        stock, ours = (pool.submit(passing, args.tree, which, options).result() for which in (False, True))
    named = set(re.findall(r'`(test_\w+\.py::\w+)`', README.read_text(encoding='utf-8')))
    lost = {re.sub(r'.*/(\w+\.py::)(?:\w+::)?', r'\1', test) for test in stock - ours}
    print(f"{len(stock)} tests pass with MMEngine's classes, {len(stock & ours)} of them with durable's")
    if lost != named:
        sys.exit(f'error: named in {README} are {sorted(named)}, those lost are {sorted(lost)}')


if __name__ == '__main__':
    main()
