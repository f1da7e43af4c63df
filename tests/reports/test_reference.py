"""Published values: the table itself, a run held against it, and the marks on the board."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faulthelp import command

from bench.errors import BenchError
from bench.protocol import cards
from bench.record import Record
from reports.board import assemble
from reports.reference import Reference, Verdict, judge, listing, located, mark, of_model, references
from reports.verify import Verification

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_whole() -> None:
    rows = references()
    assert len(rows) >= 90
    assert len({(r.name, r.protocol, r.metric) for r in rows}) == len(rows)
    for r in rows:
        assert 0 < r.value < 100
        assert 0 < r.tolerance <= 1
        assert r.source
        assert not r.address or r.address.endswith(r.file)
        assert r.protocol in cards()
    assert len(listing()) == len({r.name for r in rows})


@pytest.mark.parametrize(
    ("name", "protocol", "value"),
    [
        ("dino-vits16", "knn/dino@1", 74.5),
        ("dino-vitb8", "linear/dino-b@2", 80.1),
        ("mocov2-resnet50-800", "knn/dino@1", 61.9),
        ("dinov2-vitg14", "knn/dinov2@1", 83.5),
        ("mae-vith14", "knn/dinov2@1", 49.4),
        ("ibot-vitl16", "finetune/ibot-l@2", 84.8),
        # Its rate is 0.1, the ViTs' 3.
        ("mocov3-resnet50", "linear/mocov3-r50@1", 74.6),
        ("mocov3-vitb16", "linear/mocov3@1", 76.7),
    ],
)
def test_known_values(name: str, protocol: str, value: float) -> None:
    assert [r.value for r in of_model(name) if r.protocol == protocol] == [value]


def test_a_value_is_reproduced_up_to_its_tolerance_on_both_sides() -> None:
    [r] = [r for r in of_model("dino-vits16") if r.suite == "knn"]
    assert [Verdict(r, value).reproduced for value in (74.19, 74.2, 74.5, 74.8, 74.81)] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert str(Verdict(r, 75.3)) == "off by +0.80"
    assert str(Verdict(r, 74.6)) == "reproduced"


def test_inaturalist_is_verified_by_its_own_suite() -> None:
    asked = Verification("x/dinov2.pth", ["inat18"], reference="dinov2-vitg14")
    assert (asked.protocols, asked.data) == ({"inat18": "inat18/dinov2@1"}, "inat18")
    assert [r.value for r in asked.wanted] == [81.6]


def test_every_value_is_under_a_protocol_that_runs() -> None:
    assert {r.protocol for r in references()} <= set(cards())


def test_which_model_is_meant() -> None:
    assert {r.name for r in of_model("/some/where/dino_deitsmall16_pretrain.pth")} == {"dino-vits16"}
    with pytest.raises(BenchError, match="is the file of barlow-resnet50, vicreg-resnet50: say which"):
        of_model("resnet50.pth")
    with pytest.raises(BenchError, match="nearest: dino-vits16"):
        of_model("dino-vits-16")


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match=r"data/checkpoints/.*hub/checkpoints.*download https://.*dino_deitsmall16"):
        located(of_model("dino-vits16"))
    (tmp_path / "resnet50.pth").touch()
    with pytest.raises(BenchError, match="is not here"):
        located(of_model("vicreg-resnet50"))  # A name that two releases share says nothing.
    (tmp_path / "vicreg-resnet50.pth").touch()
    assert located(of_model("vicreg-resnet50")).name == "vicreg-resnet50.pth"
    (tmp_path / "mocov2-resnet50-800.pth.tar").touch()
    assert located(of_model("mocov2-resnet50-800")).name == "mocov2-resnet50-800.pth.tar"
    with pytest.raises(BenchError, match="no released file known"):
        located(of_model("byol-resnet50"))


def test_what_cannot_be_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match=r"no value of suite 'fewshot' is published for DINO ViT-S/16; there are: knn"):
        Verification("dino-vits16", ["fewshot"])
    monkeypatch.setattr("reports.verify.cards", lambda: {"linear/mae-cached@1": None})
    with pytest.raises(
        BenchError, match=r"under linear/mae@2, which this version cannot run \(linear/mae-cached@1 is ano"
    ):
        Verification("mae-vith14", ["linear"])


def released(make: Callable[..., Record], value: float, **changes: object) -> Record:
    record = make()
    record.model = record.model.model_copy(
        update={"spec": "x/dino_deitsmall16_pretrain.pth", "architecture": "vit_small_patch16_224"}
    )
    m = record.measurements[0].model_copy(
        update={"value": value, "n": 50_000, "settings": {"k": 20, "temperature": 0.07}, "metric": "top1", **changes}
    )
    record.measurements = [m]
    return record


def test_marks_are_for_the_published_run_alone(make: Callable[..., Record]) -> None:
    record = released(make, 74.4)
    verdict = mark(record.model, record.measurements[0])
    assert verdict is not None
    assert verdict.reproduced
    [cell] = assemble([record]).cells.values()
    assert "reproduced" in cell.flags
    [cell] = assemble([released(make, 72.0)]).cells.values()
    assert "off by -2.50" in cell.flags
    others = [
        {"n": 49_999}, {"protocol": "knn/dino@1+k=20"}, {"settings": {"k": 10, "temperature": 0.07}},
        {"precision": "bf16"}, {"metric": "top5"},
    ]  # fmt: skip
    for change in others:
        other = released(make, 74.4, **change)
        assert mark(other.model, other.measurements[0]) is None
    # Epsilon and heads, where a layout knows them, are part of the card's architecture.
    stated = record.model.model_copy(update={"architecture": "vit_small_patch16_224(num_heads=12)"})
    assert mark(stated, record.measurements[0]) is not None
    wide = record.model.model_copy(update={"architecture": "vit_base_patch16_224"})
    assert mark(wide, record.measurements[0]) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 1000}, "on 50,000 samples of imagenet, and this run has 1,000"),
        ({"protocol": "knn/lightly@1"}, "another protocol is another number"),
        ({"metric": "top5"}, "this run has no top1"),
        ({"settings": {"k": 10}}, "at k=20"),
    ],
)
def test_a_run_of_something_else_is_refused(make: Callable[..., Record], change: dict[str, object], said: str) -> None:
    wanted: list[Reference] = [r for r in of_model("dino-vits16") if r.suite == "knn"]
    with pytest.raises(BenchError, match=said):
        judge(released(make, 74.5, **change), wanted)


def features(folder: Path, wrong: float) -> str:
    """Two clusters that kNN tells apart, 50 000 test samples of which a share ``wrong`` carries the other's label."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, n, flipped in (("train", 250, 0.0), ("test", 50_000, wrong)):
        y = np.arange(n) % 2
        x = np.stack([1.0 - 2.0 * y, 0.01 * rng.normal(size=n)], axis=1).astype(np.float32)
        y = np.where(np.arange(n) < round(flipped * n), 1 - y, y)
        np.savez(folder / f"{split}.npz", x=x, y=y)
    return f"features:{folder}"


def test_from_the_command_line(tmp_path: Path) -> None:
    def verify(*args: str) -> subprocess.CompletedProcess[str]:
        runs = tmp_path / "runs"
        return command("verify", "--suite", "knn", "--reference", "dino-vits16", "--runs", runs, *args)

    good = verify("--model", features(tmp_path / "good", 0.255))
    assert good.returncode == 0, good.stderr
    assert "knn/dino@1 k=20  top1 74.50  published 74.5 ± 0.3 (DINO README): reproduced" in good.stdout
    bad = verify("--model", features(tmp_path / "bad", 0.3), "--json")
    assert bad.returncode == 1
    [value] = json.loads(bad.stdout)["values"]
    assert (value["published"], value["reproduced"], round(value["off"], 6)) == (74.5, False, -4.5)
    again = verify("--model", f"features:{tmp_path / 'bad'}")
    assert again.returncode == 1
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2  # The record that was there was judged.
    short = verify("--model", "demo:trio-kd", "--data", "demo")
    assert short.returncode == 2
    assert "give the whole test split" in short.stderr
    assert "images" not in short.stderr  # It is known before a single one is read.
    assert short.stdout == ""
