"""Numbers from -1 to 1 as shades or colours of a terminal."""

from __future__ import annotations

from collections.abc import Callable

Paint = Callable[[float, str], str]
Colour = tuple[int, int, int]

_SHADES = " ░▒▓█"
# Blue for minus, nearly white for nothing, orange for plus: told apart by the colour-blind as well.
_MINUS: Colour = (33, 102, 172)
_ZERO: Colour = (244, 244, 240)
_PLUS: Colour = (204, 76, 2)
_CUBE = (0, 95, 135, 175, 215, 255)  # the levels of the 256 colours


def plain(value: float, text: str) -> str:
    """Put a shade before the text of a cell, in the place of its first blank.

    Args:
        value: -1 to 1; its size decides.
        text: what the cell shows, with a blank to the left.

    Example:
        >>> plain(0.0, "  .00"), plain(-0.6, " -.60"), plain(1.0, " 1.00")
        ('  .00', '▓-.60', '█1.00')
    """
    room = len(text) - len(text.lstrip(" ")) - 1
    shade = _SHADES[min(len(_SHADES) - 1, int(abs(value) * len(_SHADES)))]
    return text[:room] + shade + text[room + 1 :] if room >= 0 else text


def in_24_bits(value: float, text: str) -> str:
    """Put the text of a cell on a background of any colour."""
    red, green, blue = colour = colour_of(value)
    return f"\x1b[48;2;{red};{green};{blue};{_ink(colour)}m{text}\x1b[0m"


def in_256_colours(value: float, text: str) -> str:
    """Put the text of a cell on the nearest background of 256 colours."""
    colour = colour_of(value)
    red, green, blue = (
        min(range(6), key=lambda level: abs(_CUBE[level] - part)) for part in colour
    )
    return f"\x1b[48;5;{16 + 36 * red + 6 * green + blue};{_ink(colour)}m{text}\x1b[0m"


def colour_of(value: float) -> Colour:
    """Mix the colour of a number.

    Args:
        value: -1 to 1; what lies beyond is taken to the end.

    Example:
        >>> colour_of(0.0), colour_of(2.0)
        ((244, 244, 240), (204, 76, 2))
    """
    end, share = (_PLUS if value > 0 else _MINUS), min(1.0, abs(value))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_ZERO, end, strict=True))
    return red, green, blue


def _ink(colour: Colour) -> str:
    """Black or white, whichever reads better on a background."""
    shares = (0.2126, 0.7152, 0.0722)  # of the luminance, with the curve of a screen below
    light = sum(share * (part / 255) ** 2.2 for share, part in zip(shares, colour, strict=True))
    return "38;5;16" if light > 0.18 else "38;5;231"
