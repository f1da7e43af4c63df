"""The contract of a Backbone over every registered layout; those of one size are golden files, in the slow half."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contracthelp import check_contract
from layouthelp import filled, images, values
from smalllayouts import GOLDEN, SMALL
from test_layouts import _write

import bench
from adapters.layouts import LAYOUTS
from adapters.networks import build
from bench.backbone import Backbone


def _load(name: str, folder: Path) -> Backbone:
    make, architecture, arguments, _ = SMALL[name]
    torch.save(make(), folder / "weights.pth")
    inside = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    found = bench.load(folder / "weights.pth", arch=f"{architecture}({inside})")
    assert isinstance(found, Backbone)
    return found


def test_every_layout_is_here() -> None:
    assert {layout.name for layout in LAYOUTS} == {*SMALL, *GOLDEN}


@pytest.mark.parametrize("name", SMALL)
def test_layouts(name: str, tmp_path: Path) -> None:
    backbone = _load(name, tmp_path)
    assert backbone.card.layout is not None
    assert backbone.card.layout.startswith(name)
    check_contract(backbone, images(SMALL[name][3], 2))


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_layouts_of_one_size(name: str, tmp_path: Path) -> None:
    backbone = bench.load(_write(GOLDEN[name], None, tmp_path))
    assert isinstance(backbone, Backbone)
    assert backbone.card.layout is not None
    assert backbone.card.layout.startswith(name)
    shape = (2, 3, 16, 224, 224) if backbone.card.family == "video" else (2, 3, 224, 224)
    check_contract(backbone, values("pictures", shape) * 224, moves=False)


# Beside them one of ours whose file lacks the classifier.
_ACROSS = ("DINO", "MoCo v2")


def _digests(folder: Path) -> list[str]:
    found = [_load(name, folder).card.weight_digest for name in _ACROSS]
    bare = {n: t for n, t in filled(build("wrn_16_1")).state_dict().items() if not n.startswith("fc.")}
    torch.save({"model": bare, "epoch": 1, "best_acc": 0.5}, folder / "weights.pth")
    return [*found, bench.load(folder / "weights.pth").card.weight_digest]


def test_digests_are_those_of_another_process(tmp_path: Path) -> None:
    here = Path(__file__)
    code = (
        f"import sys; sys.path[:0] = {[str(here.parents[2]), str(here.parent)]!r}; from pathlib import Path; "
        f"import test_layout_contract; print('\\n'.join(test_layout_contract._digests(Path({str(tmp_path)!r}))))"
    )
    # Memory that was used before, and another order of sets.
    ballast = [torch.full((1 << 20,), float("nan")) for _ in range(8)]
    del ballast
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == _digests(tmp_path)
