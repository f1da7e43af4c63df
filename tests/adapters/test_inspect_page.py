"""What docs/inspect.md shows is what `bench inspect` says of the files that it names."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bench.card import Card, Coverage
from reports.inspection import render

ROOT = Path(__file__).parents[2]
FAST = {"hf5-dinov2_small", "repdistiller-wrn_16_2", "solo_learn-byol-resnet18_cifar"}


def _writer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_inspect_page", ROOT / "scripts" / "write_inspect_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


writer = _writer()
SHOWN = writer.shown(writer.PAGE.read_text(encoding="utf-8"))


def test_the_page_shows_six_layouts_and_more() -> None:
    assert len({one.fixture for one in SHOWN}) >= 6
    assert all(one.text.startswith("$ bench inspect --model ") for one in SHOWN)


@pytest.mark.parametrize(
    "index",
    [
        pytest.param(i, id=one.fixture, marks=() if one.fixture in FAST else pytest.mark.slow)
        for i, one in enumerate(SHOWN)
    ],
)
def test_the_page_shows_the_real_output(index: int, tmp_path: Path) -> None:
    assert writer.output(SHOWN[index], tmp_path) == SHOWN[index].text


def test_left_over_names_that_nobody_knows_are_said_to_be_unknown() -> None:
    card = Card(
        name="n", spec="s", architecture="a", family="cnn", dims={"pooled": 3}, feature="avg", weight_digest="d",
        container="torch zip", weight_sets=["a", "b", "c"], averages=["b"],
        coverage=Coverage(filled=1, total=1, heads=["fc.*"], unused=["gadget.*", "x.*"], kinds={"fc.*": "classifier"}),
    )  # fmt: skip
    text = render(card)
    assert "left over: fc.* (classifier, known); gadget.*, x.* (unknown)" in text
    assert "torch zip, 3 weight sets: a, b (EMA), c; chosen: a (--weights-key for another)" in text
    assert "mean of the last map, 3 wide" in text
