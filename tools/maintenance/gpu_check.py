# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Everything that only a GPU can show, in one command of at most eight minutes on a machine with Python and PyTorch.

The machine needs no network. Beforehand, ``--list`` there says what its Python lacks, and ``--fetch FOLDER --lacking
FILE`` here downloads wheels for that Python and draws the digits; both folders travel with the checkout::

    python tools/maintenance/gpu_check.py --list > lacking.json                              # there
    python tools/maintenance/gpu_check.py --fetch gpu_wheels --lacking lacking.json          # here
    python tools/maintenance/gpu_check.py --wheels gpu_wheels --out gpu                      # there

Each part is a process of its own and writes its results as they come: ``gpu/gpu_check.json`` and ``gpu/gpu_check.md``.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARTS = ('operators', 'training', 'resume', 'speed')
LIMIT_MB = 60
#: Import name to what brings it, for a detector, a classifier and a segmenter; PyTorch and torchvision are there.
NEEDED = {
    **{name: name for name in ('numpy', 'addict', 'termcolor', 'yapf', 'rich', 'packaging', 'safetensors', 'scipy')},
    **{name: name for name in ('matplotlib', 'pycocotools', 'shapely', 'six', 'terminaltables', 'tqdm', 'einops')},
    **{name: name for name in ('mat4py', 'modelindex', 'ftfy', 'prettytable', 'regex', 'imageio', 'pygments', 'mdurl')},
    **{name: name for name in ('click', 'platformdirs', 'wcwidth', 'cycler', 'kiwisolver', 'pyparsing', 'contourpy')},
    **{'yaml': 'pyyaml', 'PIL': 'pillow', 'cv2': 'opencv-python-headless', 'importlib_metadata': 'importlib-metadata'},
    **{'skimage': 'scikit-image', 'imgaug': 'imaug==0.4.3', 'lazy_loader': 'lazy-loader', 'fontTools': 'fonttools'},
    **{'markdown_it': 'markdown-it-py', 'ordered_set': 'ordered-set', 'dateutil': 'python-dateutil', 'zipp': 'zipp'},
    **{'mmengine': 'onedl-mmengine==0.10.12', 'mmcv': 'onedl-mmcv==2.3.6', 'mmdet': 'onedl-mmdetection==3.5.1'},
    **{'mmpretrain': 'onedl-mmpretrain==1.3.6', 'mmseg': 'onedl-mmsegmentation==1.4.2'},
}
#: Bytes of a forward pass in bfloat16, an image at 224x224, if each operator reads inputs and writes outputs once.
FLOOR_BYTES = {'tiny': 52e6, 'small': 80e6, 'base': 136e6}
DEMOS = {
    'classification': 'lightvit_digits',
    'segmentation': 'semantic_fpn_lightvit_digits',
    'detection': 'mask_rcnn_lightvit_digits',
}
BATCH = 8


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--list', action='store_true', help='print what this Python lacks, as JSON')
    parser.add_argument('--fetch', type=Path, metavar='FOLDER', help='download wheels and draw digits into it')
    parser.add_argument('--lacking', type=Path, metavar='FILE', help='with --fetch: what --list has printed there')
    parser.add_argument('--python', default='3.11', help='with --fetch, without --lacking: the Python there')
    parser.add_argument('--wheels', type=Path, metavar='FOLDER', help='what --fetch has written')
    parser.add_argument('--out', type=Path, default=Path('gpu_check'), help='folder of the results')
    parser.add_argument('--device', default='cuda', choices=['cuda', 'cpu'], help='cpu: to try this program')
    parser.add_argument('--tiny', action='store_true', help='the smallest numbers, to try this program')
    parser.add_argument('--seconds', type=float, default=460, help='when no further step begins')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--part', choices=PARTS, help=argparse.SUPPRESS)
    return parser


# ------------------------------------------------------------------------------------------------------- beforehand


def lacking() -> dict[str, Any]:
    """This Python's version, and what it lacks."""
    names = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    return {'python': platform.python_version(), 'machine': platform.machine(), 'lacking': names}


def fetch(folder: Path, there: dict[str, Any]) -> None:
    """Download wheels for another Python, build those that are published as source alone, and draw the digits."""
    version = '.'.join(there['python'].split('.')[:2])
    tags = [f'manylinux_2_{minor}_{there["machine"]}' for minor in (17, 27, 28)] + [f'manylinux2014_{there["machine"]}']
    sources = [name for name in there['lacking'] if name.startswith('onedl-')]  # pure Python, so any Python builds them
    wheels = [name for name in there['lacking'] if name not in sources]
    target = [f'--python-version={version}', '--only-binary=:all:', *(f'--platform={tag}' for tag in tags)]
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    if wheels:
        subprocess.run([*pip, 'download', '--no-deps', *target, '-d', str(folder), *wheels], check=True)
    if sources:
        subprocess.run([*pip, 'wheel', '--no-deps', '-w', str(folder), *sources], check=True)
    sizes = {path.name: path.stat().st_size / 1e6 for path in folder.glob('*.whl')}
    if sum(sizes.values()) > LIMIT_MB:
        first = sorted(sizes, key=sizes.__getitem__, reverse=True)[:4]
        largest = ', '.join(f'{name} {sizes[name]:.0f} MB' for name in first)
        sys.exit(f'error: {sum(sizes.values()):.0f} MB of wheels, more than {LIMIT_MB}: {largest}')
    draw_digits(folder / 'digits', 50 * BATCH)
    print(f'{folder}: {len(sizes)} wheels for Python {version}, {sum(sizes.values()):.0f} MB, and the digits')


def draw_digits(folder: Path, number: int) -> None:
    """The demos' data in small, since scikit-learn, which has the scans, may not be there."""
    sys.path[:0] = [str(ROOT), str(ROOT / 'tools' / 'demo')]
    from digits import prepare, settings_for

    for task in DEMOS:
        prepare(task, folder / task, settings_for(task, num_train=number, num_val=10))


# ------------------------------------------------------------------------------------------------------- the parts


class Part:
    """What a part knows: its arguments, the end of its time, and where its results go."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.end = time.monotonic() + args.seconds
        self.iterations = 4 if args.tiny else 50
        self.digits = (args.wheels or args.out) / 'digits'

    def say(self, **row: Any) -> None:
        """A result, as a line that the parent reads."""
        print(json.dumps(row), flush=True)

    @property
    def is_late(self) -> bool:
        """Whether nothing may begin any more."""
        return time.monotonic() > self.end

    def operators(self) -> None:
        """Each operator on the device against the CPU: greatest difference over the greatest value, gradients too."""
        sys.path.insert(0, str(ROOT / 'tests' / 'operators'))
        import mmcv.ops
        import operator_cases
        import torch

        for name, case in {**operator_cases.CASES, **operator_cases.WITHOUT_A_CPU_FORM}.items():
            with operator_cases.extension(operator_cases.stand_in()):
                expected = case(mmcv.ops)
                try:
                    with torch.device(self.args.device):
                        outputs = [output.cpu() for output in case(mmcv.ops)]
                except Exception as error:  # the others are told all the same
                    self.say(name=name, passed=False, note=f'{type(error).__name__}: {error}')
                    continue
            same = [output.shape == wanted.shape for output, wanted in zip(outputs, expected, strict=True)]
            errors = [
                float((output.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-9))
                for output, wanted in zip(outputs, expected)
                if output.shape == wanted.shape and output.numel()
            ]
            limit = 1e-2 if 'float16' in name else 1e-4
            self.say(name=name, error=max(errors, default=0.0), passed=all(same) and max(errors, default=0.0) <= limit)

    def train(self, task: str, work_dir: Path, *options: str, flags: tuple[str, ...] = ()) -> subprocess.Popen:
        """Begin a short training of a demo, as a process."""
        length = f'train_cfg.max_iters={self.iterations}' if task == 'segmentation' else 'train_cfg.max_epochs=1'
        settings = [length, 'train_cfg.val_interval=999', f'train_dataloader.batch_size={BATCH}',
                    'default_hooks.logger.interval=1', *options]  # fmt: skip
        config = ROOT / 'configs' / 'demo' / f'{DEMOS[task]}.py'
        command = [sys.executable, '-m', 'mmlightvit', 'train', str(config), '--work-dir', str(work_dir)]
        command += ['--data-root', str(self.digits / task), *flags, '--cfg-options', *settings]
        work_dir.mkdir(parents=True, exist_ok=True)
        with (work_dir / 'out').open('a') as out:
            return subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)

    def training(self) -> None:
        """The three demos in three types: the loss falls."""

        def run(task: str, dtype: str) -> None:
            work_dir = self.args.out / 'training' / f'{task}-{dtype}'
            mixed = dtype != 'float32'
            options = (f'optim_wrapper.dtype={dtype}',) if mixed else ()
            if self.is_late:
                return self.say(name=work_dir.name, passed=False, note='no time left')
            process = self.train(task, work_dir, *options, flags=('--amp',) if mixed else ())
            try:
                process.wait(max(self.end - time.monotonic(), 30))
            finally:
                process.kill()
            if process.returncode != 0:
                note = (['', *(work_dir / 'out').read_text().splitlines()])[-1][:300]
                return self.say(name=work_dir.name, passed=False, note=note)
            losses = read_losses(work_dir)
            ends = max(1, len(losses) // 10)
            first, last = (sum(part) / ends for part in (losses[:ends], losses[-ends:]))
            falls = all(map(math.isfinite, losses)) and (last < first or self.args.tiny)
            return self.say(name=work_dir.name, iterations=len(losses), first=first, last=last, passed=falls)

        dtypes = ['float32', 'bfloat16'] + ['float16'] * (self.args.device == 'cuda')
        with ThreadPoolExecutor(1 if self.args.device == 'cpu' else 3) as pool:
            for done in [pool.submit(run, task, dtype) for task in DEMOS for dtype in dtypes]:
                done.result()

    def resume(self) -> None:
        """A training that is killed behind its first epoch and resumed ends with the weights of one that was not."""
        import torch

        os.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'
        options = ('train_cfg.max_epochs=2', 'randomness.deterministic=True')
        folder = self.args.out / 'resume'
        whole, cut = (self.train('classification', folder / name, *options) for name in ('whole', 'cut'))
        while cut.poll() is None and not (folder / 'cut' / 'epoch_1.pth').exists() and not self.is_late:
            time.sleep(0.05)
        cut.send_signal(signal.SIGKILL)
        cut.wait()
        codes = [whole.wait(), self.train('classification', folder / 'cut', *options, flags=('--resume',)).wait()]
        if codes != [0, 0]:
            note = (['', *(folder / 'cut' / 'out').read_text().splitlines()])[-1][:300]
            return self.say(name='weights', passed=False, note=note)
        states = [torch.load(folder / name / 'epoch_2.pth', map_location='cpu', weights_only=False)['state_dict']
                  for name in ('whole', 'cut')]  # fmt: skip
        different = [key for key, value in states[0].items() if not torch.equal(value, states[1][key])]
        return self.say(name='weights', tensors=len(states[0]), different=len(different), killed=cut.returncode == -9,
                        passed=not different and cut.returncode == -9)  # fmt: skip

    def speed(self) -> None:
        """Images per second, memory, and the share of the time that the bytes alone take at the rate of a copy."""
        import torch
        from mmengine.registry import MODELS

        import mmlightvit.registry  # noqa: F401
        from mmlightvit.cost.timing import take_turns
        from mmlightvit.deploy.compile import compile_blocks

        torch._dynamo.config.recompile_limit = 64
        cuda = self.args.device == 'cuda'
        sync = torch.cuda.synchronize if cuda else lambda: None
        source = torch.ones(1 << (28 if cuda else 22), device=self.args.device)
        target = torch.empty_like(source)
        laps = take_turns({'copy': functools.partial(target.copy_, source)}, 5, sync=sync)['copy']
        rate = 2 * source.nbytes / min(lap.wall for lap in laps)
        self.say(name='copy', gigabytes_per_second=rate / 1e9, passed=True)
        del source, target
        batches = (2, 1) if self.args.tiny else (256, 1)
        cases = itertools.product(('eager', 'compiled'), batches, ('forward', 'training'))
        for form, batch, mode in cases:
            for variant, floor in FLOOR_BYTES.items():
                name = f'{variant}, {form}, batch {batch}, {mode}'
                if self.is_late:
                    self.say(name=name, passed=False, note='no time left')
                    continue
                torch.manual_seed(0)
                size = 64 if self.args.tiny else 224
                model = MODELS.build(dict(type='mmlightvit.LightViT', arch=variant)).to(self.args.device)
                model.train(mode == 'training')
                if form == 'compiled':
                    compile_blocks(model)
                images = torch.randn(batch, 3, size, size, device=self.args.device)

                def step(model: Any = model, images: Any = images, training: bool = mode == 'training') -> None:
                    with torch.autocast(self.args.device, torch.bfloat16), torch.set_grad_enabled(training):
                        outputs = model(images)
                    if training:
                        sum(output.float().mean() for output in outputs).backward()
                        model.zero_grad()

                begin = time.monotonic()
                step()
                sync()
                warm = time.monotonic() - begin
                if cuda:
                    torch.cuda.reset_peak_memory_stats()
                rounds, length = (2, 0) if self.args.tiny else (7, 0.2)
                laps = take_turns({name: step}, rounds, length, sync=sync)[name]
                seconds = statistics.median(lap.wall for lap in laps)
                row = dict(images_per_second=batch / seconds, first_step_seconds=warm)
                if mode == 'forward' and size == 224:
                    row['share_of_byte_floor'] = batch * floor / rate / seconds
                if cuda:
                    row['peak_megabytes'] = torch.cuda.max_memory_allocated() / 1e6
                self.say(name=name, **row, passed=True)
                del model, images


def read_losses(work_dir: Path) -> list[float]:
    """The loss of each iteration that a run has logged."""
    lines = [line for file in sorted(work_dir.rglob('scalars.json')) for line in file.read_text().splitlines()]
    return [row['loss'] for row in map(json.loads, lines) if 'loss' in row]


# ------------------------------------------------------------------------------------------------------- the whole


def unpack(args: argparse.Namespace) -> list[str]:
    """Lay the wheels beside each other; those that this Python has already come first all the same."""
    folder = (args.out / 'site').resolve()
    for wheel in sorted(args.wheels.glob('*.whl')) if args.wheels else ():
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)
    return [str(ROOT), str(folder)]


def page(results: dict[str, Any]) -> str:
    """The results as a page of tables."""
    lines = ['# A check on a GPU', '', f'{results["machine"]}; {results["seconds"]:.0f} s.']
    for part, rows in results['parts'].items():
        failed = sum(not row.get('passed') for row in rows)
        keys = list(dict.fromkeys(key for row in rows for key in row if key != 'passed'))
        lines += ['', f'## {part.capitalize()}: {len(rows) - failed} of {len(rows)} passed', '']
        lines += ['| ' + ' | '.join([*keys, 'passed']) + ' |', '|---' * (len(keys) + 1) + '|']
        for row in rows:
            cells = [row.get(key, '') for key in keys] + ['yes' if row.get('passed') else '**no**']
            texts = [f'{cell:.4g}' if isinstance(cell, float) else str(cell).replace('|', '/') for cell in cells]
            lines.append('| ' + ' | '.join(texts) + ' |')
    return '\n'.join(lines) + '\n'


def main() -> int:
    """Run what the arguments say; 1 if something failed."""
    args = parser().parse_args()
    if args.list:
        print(json.dumps(lacking(), indent=2))
        return 0
    if args.fetch:
        args.fetch.mkdir(parents=True, exist_ok=True)
        without = {'python': args.python, 'machine': 'x86_64', 'lacking': list(NEEDED.values())}
        fetch(args.fetch, json.loads(args.lacking.read_text()) if args.lacking else without)
        return 0
    if args.part:
        import mmlightvit.operators.installed  # noqa: F401

        getattr(Part(args), args.part)()
        return 0
    begin = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    paths = [*unpack(args), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'PYTHONWARNINGS': 'ignore'}
    describe = 'import sys; from mmlightvit.cost.timing import environment; print(environment(sys.argv[1]))'
    command = [sys.executable, '-c', describe, args.device]
    machine = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if machine.returncode:
        sys.exit('error: ' + ['', *machine.stderr.splitlines()][-1] + '; --list says what this Python lacks')
    if not (args.wheels and (args.wheels / 'digits').exists()) and {'training', 'resume'} & {*args.parts}:
        draw_digits(args.out / 'digits', BATCH * (4 if args.tiny else 50))
        args.wheels = None
    results: dict[str, Any] = {'machine': machine.stdout.strip(), 'seconds': 0.0, 'parts': {}}
    for part in args.parts:
        rows = results['parts'].setdefault(part, [])
        left = args.seconds - (time.monotonic() - begin)
        command = [sys.executable, __file__, '--part', part, '--out', str(args.out.resolve()), '--device', args.device]
        command += ['--seconds', str(left), *(['--tiny'] if args.tiny else [])]
        command += ['--wheels', str(args.wheels.resolve())] if args.wheels else []
        with (args.out / f'{part}.log').open('w') as log, subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as child:  # fmt: skip
            for line in child.stdout or ():
                if line.startswith('{'):
                    rows.append(json.loads(line))
                    results['seconds'] = time.monotonic() - begin
                    (args.out / 'gpu_check.json').write_text(json.dumps(results, indent=2) + '\n')
                    (args.out / 'gpu_check.md').write_text(page(results))
        if child.returncode or not rows:
            rows.append({'name': part, 'passed': False, 'note': f'exit code {child.returncode}: see {part}.log'})
        (args.out / 'gpu_check.json').write_text(json.dumps(results, indent=2) + '\n')
        (args.out / 'gpu_check.md').write_text(page(results))
        print(f'{part}: {sum(bool(row["passed"]) for row in rows)} of {len(rows)} passed', flush=True)
    print(args.out / 'gpu_check.md')
    return 0 if all(row['passed'] for rows in results['parts'].values() for row in rows) else 1


if __name__ == '__main__':
    sys.exit(main())
