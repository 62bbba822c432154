# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``mmlightvit convert`` writes over nothing unasked."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmlightvit.cli import convert
from mmlightvit.errors import UserError


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    target = tmp_path / 'mine.pth'
    target.write_text('mine')
    arguments = [str(tmp_path / 'source.pth'), str(target)]
    with pytest.raises(UserError, match=r'mine\.pth exists; .*--overwrite'):
        convert.run(convert.parser().parse_args(arguments))
    assert target.read_text() == 'mine'
    with pytest.raises(UserError, match=r'source\.pth'):  # goes on to read the source
        convert.run(convert.parser().parse_args([*arguments, '--overwrite']))
