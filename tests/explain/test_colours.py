from __future__ import annotations

import re

import pytest

from seqlab.explain.colours import colour_of, in_24_bits, in_256_colours, plain


def test_shades_grow_with_the_size_of_a_value() -> None:
    shades = [plain(value, "  .50")[1] for value in (0.0, 0.25, 0.45, 0.65, 0.85, 1.0, 9.0)]
    assert "".join(shades) == " ░▒▓███"
    assert plain(-0.65, " -.65") == "▓-.65"


def test_a_shade_never_covers_a_figure() -> None:
    assert plain(1.0, "-12.5") == "-12.5"
    assert plain(1.0, "     ") == "    █"


def test_colours_run_from_blue_to_orange() -> None:
    assert colour_of(-1.0) == colour_of(-7.0) == (33, 102, 172)
    assert colour_of(1.0) == (204, 76, 2)
    reds = [colour_of(value / 10)[0] for value in range(-10, 1)]
    assert reds == sorted(reds)


def test_24_bits_and_256_colours_say_what_they_are() -> None:
    assert in_24_bits(1.0, " 1.00") == "\x1b[48;2;204;76;2;38;5;231m 1.00\x1b[0m"
    assert in_24_bits(0.0, "  .00") == "\x1b[48;2;244;244;240;38;5;16m  .00\x1b[0m"
    # 215, 95, 0 and 255, 255, 255 are the nearest of the cube.
    assert in_256_colours(1.0, "x") == f"\x1b[48;5;{16 + 36 * 4 + 6 * 1 + 0};38;5;231mx\x1b[0m"
    assert in_256_colours(0.0, "x") == "\x1b[48;5;231;38;5;16mx\x1b[0m"


@pytest.mark.parametrize("value", [value / 20 for value in range(-20, 21)])
def test_ink_can_be_read_on_its_ground(value: float) -> None:
    def luminance(colour: tuple[int, ...]) -> float:
        parts = [part / 255 for part in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    match = re.search(r"48;2;(\d+);(\d+);(\d+);38;5;(\d+)m", in_24_bits(value, ""))
    assert match
    ground = luminance(tuple(map(int, match.groups()[:3])))
    ink = 1.0 if match[4] == "231" else 0.0
    low, high = sorted((ground, ink))
    assert (high + 0.05) / (low + 0.05) > 4.5  # what WCAG asks of text
