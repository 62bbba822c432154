# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""``{schema} MODULE:NAME``: a JSON schema as a table of its keys."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from sphinx.util.docutils import SphinxDirective


def kind(schema: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if 'enum' in schema:
        return ' or '.join(f'`{value}`' for value in schema['enum'])
    types = schema.get('type', 'anything')
    shown = types if isinstance(types, str) else ' or '.join(types)
    if 'items' in schema:
        shown += f' of {kind(schema["items"])}'
    limits = [('minimum', '>='), ('maximum', '<=')]
    bounds = [f'{sign} {schema[key]}' for key, sign in limits if key in schema]
    lengths = {schema[key] for key in ('minItems', 'maxItems') if key in schema}
    if len(lengths) == 1:
        bounds.append(f'{lengths.pop()}{"" if "maxItems" in schema else " or more"} of them')
    return f'{shown} ({", ".join(bounds)})' if bounds else shown


def rows(schema: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, str, str]]:
    """(key, what it may be, whether it has to be there) of each key, those inside of another one behind it."""
    required = schema.get('required', ())
    for name, value in schema.get('properties', {}).items():
        yield prefix + name, kind(value), 'yes' if name in required else ''
        yield from rows(value, f'{prefix}{name}.')
    others = schema.get('additionalProperties')
    if isinstance(others, Mapping):
        yield f'{prefix}NAME', kind(others), ''


class Schema(SphinxDirective):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[Any]:
        module, _, name = self.arguments[0].partition(':')
        schema = getattr(importlib.import_module(module), name)
        lines = [f'| `{key}` | {what} | {needed} |' for key, what, needed in rows(schema)]
        table = '\n'.join(['| key | value | required |', '|---|---|---|', *lines])
        return self.parse_text_to_nodes(table)


def setup(app: Any) -> dict[str, Any]:
    app.add_directive('schema', Schema)
    return {'parallel_read_safe': True}
