# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""The counters of a service, as the text that Prometheus reads."""

from __future__ import annotations

from collections import Counter

#: What is counted: kind and help of each name.
_NAMES = {
    'mmlightvit_requests_total': ('counter', 'Requests by route and status.'),
    'mmlightvit_errors_total': ('counter', 'Requests that were refused or failed, by the code of the answer.'),
    'mmlightvit_pictures_total': ('counter', 'Pictures that were predicted for, by model.'),
    'mmlightvit_request_seconds': ('histogram', 'From the first byte of a request to the last of its answer.'),
}
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and histograms with labels."""

    def __init__(self) -> None:
        self._values: Counter[tuple[str, str]] = Counter()

    def count(self, name: str, amount: float = 1, **labels: object) -> None:
        """Add to a counter."""
        self._add(name, '', amount, labels)

    def observe(self, name: str, value: float, **labels: object) -> None:
        """Add a value to a histogram."""
        for bound in _BOUNDS:
            self._add(name, '_bucket', value <= bound, {**labels, 'le': bound})
        self._add(name, '_bucket', 1, {**labels, 'le': '+Inf'})
        self._add(name, '_sum', value, labels)
        self._add(name, '_count', 1, labels)

    def _add(self, name: str, part: str, amount: float, labels: dict[str, object]) -> None:
        inside = ','.join(f'{key}="{value}"' for key, value in labels.items())
        self._values[name, f'{name}{part}{{{inside}}}'] += amount  # type: ignore[assignment]

    def text(self) -> str:
        """All of it, in Prometheus' text format 0.0.4."""
        lines = []
        for name, (kind, words) in _NAMES.items():
            lines += [f'# HELP {name} {words}', f'# TYPE {name} {kind}']
            lines += [f'{sample} {value:.10g}' for (owner, sample), value in self._values.items() if owner == name]
        return '\n'.join(lines) + '\n'
