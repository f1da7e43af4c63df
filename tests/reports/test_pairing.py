"""Paired differences of metrics that are added up over a set: detection and segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordhelp import Maker

from bench import matched
from bench.ledger import Ledger, artifact
from bench.paired import precision_difference, ratio_difference
from reports import gate
from reports.compare import Comparison, run
from reports.comparetext import render
from reports.pairing import difference_of, movers
from suites.detection import precision

NAMES = ("cat", "dog", "hen")


def scene(seed: int, shift: float, n: int = 24) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(truth, detections): objects fixed, every box found but for a shift of its own, and some false alarms."""
    rng, own = np.random.default_rng(7), np.random.default_rng(seed)
    truth: dict[str, Any] = {
        "images": [{"id": i, "height": 100, "width": 100} for i in range(n)],
        "categories": [{"id": c, "name": name} for c, name in enumerate(NAMES)],
        "annotations": [],
    }
    found = []
    for image in range(n):
        for _ in range(rng.integers(1, 4)):
            box = [*rng.uniform(0, 50, 2), *rng.uniform(20, 45, 2)]
            label = int(rng.integers(3))
            number = len(truth["annotations"]) + 1
            truth["annotations"].append(
                {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3],
                 "iscrowd": 0}
            )  # fmt: skip
            moved = [box[0] + own.normal(0, shift), box[1] + own.normal(0, shift), box[2], box[3]]
            found.append({"image_id": image, "category_id": label, "bbox": moved, "score": float(own.random())})
    return truth, found


def tables(seed: int, shift: float) -> dict[str, np.ndarray]:
    return precision.coco_matches(*scene(seed, shift))["all"]


def test_matches_come_back_as_they_were() -> None:
    truth, found = scene(1, 6)
    for table in (*precision.coco_matches(truth, found).values(), *precision.voc_matches(truth, found).values()):
        assert set(table) == matched.PACKED
        classes, recalls = matched.unpacked(table)
        again = matched.packed(classes, recalls)
        assert all(np.array_equal(again[name], table[name]) for name in table)
    classes, recalls = matched.unpacked(tables(1, 6))
    drawn = matched.figures(classes, np.ones((1, 24)), recalls)
    assert 100 * drawn["ap"][0] == pytest.approx(precision.coco_precision(truth, found)["ap"], abs=1e-6)
    per_class = [value for value in matched.by_class(classes, recalls) if value is not None]
    assert np.mean(per_class) == pytest.approx(drawn["ap"][0])


@pytest.mark.parametrize("name", sorted(matched.PACKED))
def test_matches_that_do_not_fit_are_refused(name: str) -> None:
    table = tables(1, 6)
    wrong = table[name].astype(np.int64).copy()
    wrong[-1] = -5 if name.endswith(("class", "image")) else wrong[-1]
    short = wrong if name.endswith(("class", "image")) else wrong[:-1] if name != "sizes" else wrong * 0
    with pytest.raises(ValueError, match="do not fit|unpack"):
        matched.unpacked({**table, name: short})


def test_a_difference_of_average_precision_is_that_of_the_resampled_sets() -> None:
    """The same resamples evaluated one by one, by the images' own repetition."""
    first, second = tables(1, 9), tables(2, 4)
    found = precision_difference(first, second, "ap", replicates=200, seed=3)
    values = [precision.coco_precision(*scene(s, shift))["ap"] / 100 for s, shift in ((1, 9), (2, 4))]
    assert found.value == pytest.approx(values[1] - values[0], abs=1e-8)
    assert found.low < found.value < found.high
    rng = np.random.default_rng(3)
    weights = rng.multinomial(24, np.full(24, 1 / 24), size=200)
    one_by_one = []
    for row in weights.astype(float):
        each = [matched.figures(*_with(t, row))["ap"][0] for t in (first, second)]
        one_by_one.append(each[1] - each[0])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(one_by_one, [0.025, 0.975])))
    assert found.p < 0.05
    same = precision_difference(first, first, "ap50", replicates=100)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def _with(table: dict[str, np.ndarray], weights: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray]:
    classes, recalls = matched.unpacked(table)
    return classes, weights[None], recalls


def detected(make: Maker, runs: Path, name: str, seed: int, shift: float) -> Path:
    truth, found = scene(seed, shift)
    values = precision.coco_precision(truth, found)
    packed = precision.coco_matches(truth, found)
    record = make(name, run=name)
    first = record.measurements[0]
    each = dict(zip(NAMES, matched.by_class(*matched.unpacked(packed["all"])), strict=True))
    record.measurements = [
        first.model_copy(
            update={
                "suite": "coco", "protocol": "coco/x@1", "metric": f"box_{stat}", "value": value, "settings": {},
                "interval": (0.0, 100.0), "interval_method": "bootstrap", "headline": stat == "ap", "n": 24,
                "outcomes": artifact(name, "box-all" if "_" not in stat else f"box-{stat[3:]}"),
                "details": {"per_class": each} if stat == "ap" else {},
            }
        )
        for stat, value in values.items()
    ]  # fmt: skip
    Ledger(runs).add(record, {f"box-{area}": table for area, table in packed.items()})
    return runs / f"{name}.json"


def by_metric(comparison: Comparison) -> dict[str, Any]:
    return {pair.metric: pair for pair in comparison.pairs}


def test_two_detectors_are_compared_on_the_same_images(make: Maker, tmp_path: Path) -> None:
    paths = detected(make, tmp_path, "a", 1, 9), detected(make, tmp_path, "b", 2, 4)
    comparison = run(*paths)
    pairs = by_metric(comparison)
    assert {pair.method for pair in pairs.values()} == {"paired bootstrap"}
    ap = pairs["box_ap"]
    assert ap.verdict == "better"
    assert ap.interval[0] < ap.difference < ap.interval[1]
    assert {m.name for m in ap.movers} == set(NAMES)
    assert sum(m.n for m in ap.movers) == len(scene(1, 9)[0]["annotations"])
    mean = np.mean([m.second - m.first for m in ap.movers])
    assert mean == pytest.approx(ap.difference, abs=1e-6)
    assert "classes that gained most: " in render(comparison)
    assert ap.movers[-1].name in render(comparison)


def test_the_gate_pairs_detectors(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    detected(make, Path("old"), "a", 1, 4)
    record = Ledger("old").records().__next__()
    again = record.model_copy(update={"run": "again"})
    arrays = {Path(path).stem: dict(np.load(Path("old") / path)) for path in record.artifacts}
    again.measurements = [
        m.model_copy(update={"outcomes": artifact("again", Path(m.outcomes).stem)}) for m in record.measurements
    ]  # fmt: skip
    Ledger("new").add(again, arrays)
    [verdict] = gate.run("old", "new").verdicts
    assert (verdict.method, verdict.outcome) == ("identical outcomes", "pass")
    detected(make, Path("worse"), "a", 2, 12)
    [verdict] = gate.run("old", "worse").verdicts
    assert (verdict.method, verdict.outcome) == ("paired", "regressed")


def test_other_objects_are_not_paired() -> None:
    first = tables(1, 9)
    truth, found = scene(1, 9)
    truth["annotations"] = truth["annotations"][1:]
    other = precision.coco_matches(truth, found)["all"]
    assert "other objects" in difference_of("box_ap", first, other, 0.0, 0.95)[2]
    assert "of another metric" in difference_of("box_ap", first, tables(2, 4), 0.9, 0.95)[2]
    damaged = {**first, "sizes": first["sizes"] * 0}
    assert "cannot be paired" in difference_of("box_ap", first, damaged, 0.0, 0.95)[2]


def pixels(seed: int, right: float, n: int = 30, classes: int = 4) -> dict[str, np.ndarray]:
    labelled = np.random.default_rng(5).integers(0, 400, (n, classes))
    own = np.random.default_rng(seed)
    intersection = own.binomial(labelled, right)
    predicted = intersection + own.binomial(labelled, (1 - right) / 2)
    return {"intersection": intersection, "union": predicted + labelled - intersection, "labelled": labelled}


@pytest.mark.parametrize("metric", ["miou", "macc", "pixel_acc"])
def test_segmentation_is_added_up_again(metric: str) -> None:
    first, second = pixels(1, 0.6), pixels(2, 0.7)

    def value(table: dict[str, np.ndarray], weights: np.ndarray) -> float:
        sums = {name: (weights[:, None] * array).sum(axis=0) for name, array in table.items()}
        if metric == "miou":
            return float((sums["intersection"] / sums["union"]).mean())
        if metric == "macc":
            return float((sums["intersection"] / sums["labelled"]).mean())
        return float(sums["intersection"].sum() / sums["labelled"].sum())

    change = value(second, np.ones(30)) - value(first, np.ones(30))
    found, method, note = difference_of(metric, first, second, change, 0.95)
    assert (method, note) == ("paired bootstrap", None)
    rng = np.random.default_rng(11)
    drawn = [
        value(second, w) - value(first, w) for w in rng.multinomial(30, np.full(30, 1 / 30), size=2000).astype(float)
    ]  # fmt: skip
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.004)
    assert "of another metric" in difference_of(metric, first, second, change + 0.1, 0.95)[2]
    other = {**second, "labelled": second["labelled"] + 1}
    assert "labels differ" in difference_of(metric, first, other, change, 0.95)[2]
    if metric == "miou":
        moved = movers(metric, first, second, ["a", "b", "c", "d"])
        assert np.mean([m.second - m.first for m in moved]) == pytest.approx(100 * change)
        assert sorted(m.name for m in moved) == ["a", "b", "c", "d"]


def test_a_resample_without_a_pixel_says_nothing() -> None:
    ones = np.zeros((3, 2))
    ones[0] = 4
    found = ratio_difference((ones / 2, ones), (ones, ones), replicates=300)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.5, 0.5))
