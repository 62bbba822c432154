# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The site: ``make docs`` builds it into ``build/docs``. It opens from disk and asks for nothing elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

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
