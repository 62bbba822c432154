# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Write tests/operators/compiled_outputs.npz: what mmcv's compiled operators give for the cases of the tests.

It runs where mmcv is compiled (docs/install.md), with one thread.
"""

import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests' / 'operators')]


def main() -> None:
    """Run the cases and write their outputs."""
    import mmcv.ops
    import operator_cases as cases

    from mmlightvit import operators

    if not operators.describe().startswith('compiled'):
        sys.exit('error: mmcv has no compiled operators here: ' + operators.compile_command())
    torch.set_num_threads(1)
    outputs = {
        f'{name}/{index}': output.numpy()
        for name, case in cases.CASES.items()
        for index, output in enumerate(case(mmcv.ops))
    }
    np.savez_compressed(cases.STORED, **outputs)
    print(f'{cases.STORED}: {len(outputs)} arrays, {cases.STORED.stat().st_size / 1000:.0f} kB')


if __name__ == '__main__':
    main()
