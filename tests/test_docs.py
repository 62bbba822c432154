# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Links lead somewhere, the site lists every page, and each block of commands is run or says why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import docs_worlds
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'), *(ROOT / 'mmlightvit').rglob('*.md')])
_FENCE = re.compile(r'^```.*?^```', re.MULTILINE | re.DOTALL)
_LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).strip().lower()
    return re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r'^#+ (.*)$', _FENCE.sub('', page.read_text()), re.MULTILINE)}


def broken_links(page: Path) -> Iterator[str]:
    """Links of a page to files and headings that do not exist. Those with a scheme lead elsewhere."""
    for target in _LINK.findall(_FENCE.sub('', page.read_text())):
        if re.match(r'[a-z]+:', target):
            continue
        name, _, anchor = target.partition('#')
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield f'{page.relative_to(ROOT)}: {target}'


def test_links_lead_somewhere(tmp_path):
    assert len(PAGES) > 20
    assert [broken for page in PAGES for broken in broken_links(page)] == []


def test_a_broken_link_is_seen(monkeypatch, tmp_path):
    monkeypatch.setitem(globals(), 'ROOT', tmp_path)
    (tmp_path / 'b.md').write_text('# A heading: `x.json`\n```\n[in code](nowhere.md)\n```\n')
    page = tmp_path / 'a.md'
    page.write_text('[a](b.md) [b](b.md#a-heading-xjson) [c](https://x.org/y) [d](c.md) [e](b.md#other) [f](#none)')
    assert list(broken_links(page)) == ['a.md: c.md', 'a.md: b.md#other', 'a.md: #none']


def test_the_site_lists_every_page():
    trees = re.findall(r'```\{toctree\}\n(.*?)```', (ROOT / 'docs/index.md').read_text(), re.DOTALL)
    listed = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(':')]
    pages = {str(page.relative_to(ROOT / 'docs'))[: -len('.md')] for page in PAGES if ROOT / 'docs' in page.parents}
    assert sorted(listed) == sorted(pages - {'index'})


class Block(NamedTuple):
    """A block of commands on a page, and the comment in front of it."""

    page: str
    marker: str
    commands: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        for marker, commands in re.findall(r'(?:<!-- ([^\n]*) -->\n)?```bash\n(.*?)```', page.read_text(), re.DOTALL):
            found.append(Block(str(page.relative_to(ROOT)), marker, commands))
    return found


def test_each_block_is_run_or_says_why_not():
    for block in blocks():
        assert re.fullmatch(r'run: \w+(, slow)?|not run: .+', block.marker), block
        world = re.match(r'run: (\w+)', block.marker)
        assert world is None or world[1] in docs_worlds.WORLDS, block


def _runs() -> Iterator[object]:
    for number, block in enumerate(blocks()):
        world = re.match(r'run: (\w+)', block.marker)
        if world:
            marks = [pytest.mark.slow] if block.marker.endswith(', slow') else []
            yield pytest.param(world[1], block.commands, id=f'{block.page}-{number}', marks=marks)


@pytest.mark.parametrize(('world', 'commands'), list(_runs()))
def test_the_commands_work(world, commands, tmp_path, monkeypatch):
    for package in ('mmdet', 'hotcoco', 'matplotlib'):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    replaced, expected = docs_worlds.WORLDS[world](tmp_path)
    for line in docs_worlds.lines(commands, replaced):
        assert docs_worlds.run(line) == 0, line
    for pattern in expected:
        assert list(tmp_path.glob(pattern)), pattern
