# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Colours: Okabe and Ito's seven, which people with any kind of colour vision tell apart, then Matplotlib's twenty."""

from __future__ import annotations

from collections.abc import Sequence

Colour = tuple[int, int, int]

BLUE, VERMILION, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)
AMBER, SKY, PINK, YELLOW = (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66)
#: Of the classes, in turn: Okabe and Ito's without black, then Matplotlib's tab20.
COLOURS: tuple[Colour, ...] = (
    *(BLUE, VERMILION, GREEN, AMBER, SKY, PINK, YELLOW),
    *((31, 119, 180), (174, 199, 232), (255, 127, 14), (255, 187, 120), (44, 160, 44), (152, 223, 138)),
    *((214, 39, 40), (255, 152, 150), (148, 103, 189), (197, 176, 213), (140, 86, 75), (196, 156, 148)),
    *((227, 119, 194), (247, 182, 210), (127, 127, 127), (199, 199, 199), (188, 189, 34), (219, 219, 141)),
    *((23, 190, 207), (158, 218, 229)),
)
#: Of lines on white paper, which swallows yellow.
LINES = (BLUE, VERMILION, GREEN, PINK, AMBER, SKY)


def colour_of(place: int, palette: Sequence[Sequence[int]] | None = None) -> Colour:
    """The colour of a class, RGB."""
    red, green, blue = palette[place] if palette is not None else COLOURS[place % len(COLOURS)]
    return red, green, blue


def hexadecimal(colour: Colour) -> str:
    """``#0072B2``, as Matplotlib and CSS take it."""
    return '#' + bytes(colour).hex().upper()


def letters_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out more."""
    return (0, 0, 0) if _luminance(colour) > 0.18 else (255, 255, 255)


def _luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0 to 1."""
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
