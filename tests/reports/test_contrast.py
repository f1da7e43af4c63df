"""The pages' colours by WCAG 2.2: AA for text in both themes, 3 to 1 for what charts draw."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest


def source(name: str) -> str:
    return files("reports").joinpath("templates", name).read_text(encoding="utf-8")


def palette() -> dict[str, tuple[str, str]]:
    found = re.findall(r"--([a-z]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", source("base.css"))
    return {name: (light, dark) for name, light, dark in found}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_known_contrasts() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_is_readable_on_every_ground(theme: int) -> None:
    colours = palette()
    assert {"ink", "dim", "link", "best", "alarm", "doubt", "ground", "raised", "measured"} <= set(colours)
    for ground in ("ground", "raised", "measured"):
        for text in ("ink", "dim", "link", "best", "alarm", "doubt"):
            found = contrast(colours[text][theme], colours[ground][theme])
            assert found >= 4.5, f"{text} on {ground}: {found:.2f}"
    assert contrast(colours["dim"][theme], colours["ground"][theme]) >= 3, "the border of a control"


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_charts_stand_out(theme: int) -> None:
    dark, light = re.findall(r'\["(#[0-9a-f]{6}(?:", "#[0-9a-f]{6})+)"\]', source("theme.js"))
    for colour in (light, dark)[theme].split('", "'):
        assert contrast(colour, palette()["ground"][theme]) >= 3, colour
