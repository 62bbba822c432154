# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The site: ``make docs`` builds it into ``build/docs``. It opens from disk and asks for nothing elsewhere."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / '_ext')]

from mmlightvit.version import __version__  # noqa: E402


def mathjax() -> Path:
    """MathJax as one file, drawing SVG, so that neither fonts nor further scripts are loaded."""
    package = importlib.util.find_spec('sphinx-mathjax-offline')
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError('sphinx-mathjax-offline is not installed: pip install "mmlightvit[docs]"')
    return Path(package.submodule_search_locations[0]) / 'static' / 'mathjax' / 'tex-svg.js'


project = 'mmlightvit'
copyright = 'The mmlightvit authors'
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.mathjax',
    'sphinx_copybutton',
    'commands',
    'schema',
]
exclude_patterns = ['_ext']
smartquotes = False  # --out stays --out

myst_enable_extensions = ['deflist', 'dollarmath']
myst_heading_anchors = 4

autodoc_typehints = 'signature'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True}
napoleon_custom_sections = ['Shape', 'Source', 'Departs']

html_theme = 'furo'
html_title = f'mmlightvit {version}'
html_static_path = [str(mathjax())]
mathjax_path = mathjax().name
html_copy_source = False
html_show_sphinx = False


def check_offline(app: Any, error: Exception | None) -> None:
    """Fail where a page would load something from elsewhere; links that a reader follows are no such thing."""
    from sphinx.errors import ExtensionError

    loads = re.compile(r'<(?:script|img|iframe|source|link rel="stylesheet")[^>]*(?:src|href)="((?:https?:)?//[^"]*)"')
    found = {address for page in Path(app.outdir).rglob('*.html') for address in loads.findall(page.read_text())}
    if found and error is None:
        raise ExtensionError(f'the site would load {", ".join(sorted(found))}; it has to work without a network')


def setup(app: Any) -> None:
    app.connect('build-finished', check_offline)
