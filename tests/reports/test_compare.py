"""Two records: paired differences, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from recordhelp import Maker

from bench.errors import BenchError
from bench.ledger import Ledger, artifact
from bench.paired import mcnemar
from bench.record import Engine
from reports.compare import Comparison, compare, run
from reports.comparetext import render


def both(make: Maker, tmp_path: Path, **second: object) -> tuple[Path, Path]:
    make("net-a", runs=tmp_path)
    make("net-b", **{"seed": 2, "accuracy": 0.9, **second}, runs=tmp_path)
    return tmp_path / "run-net-a.json", tmp_path / "run-net-b.json"


def headline(comparison: Comparison, suite: str = "knn", metric: str = "top1"):  # type: ignore[no-untyped-def]
    return next(p for p in comparison.pairs if p.suite == suite and p.metric == metric and p.headline)


def test_paired_numbers_are_those_of_the_outcomes(make: Maker, tmp_path: Path) -> None:
    first, second = both(make, tmp_path)
    comparison = run(first, second)
    assert len(comparison.pairs) == 10
    pair = headline(comparison)
    tables = [np.load(tmp_path / "artifacts" / f"run-net-{x}" / "knn-k20-T0.07.npz") for x in "ab"]
    a, b = (t["correct"] for t in tables)
    assert pair.difference == pytest.approx(100 * (b.mean() - a.mean()))
    assert pair.method == "paired"
    assert pair.p == mcnemar(int((~a & b).sum()), int((a & ~b).sum()))[0]
    assert pair.verdict == "better"
    assert (pair.flips.gained, pair.flips.lost) == ((~a & b).sum(), (a & ~b).sum())
    assert pair.flips.gained_samples[:5] == np.flatnonzero(~a & b)[:5].tolist()
    assert pair.flips.same_prediction == pytest.approx(
        100 * (tables[0]["prediction"] == tables[1]["prediction"]).mean()
    )
    label = tables[0]["label"]
    assert sorted(m.label for m in pair.movers) == np.unique(label).tolist()
    for mover in pair.movers:
        assert mover.first == pytest.approx(100 * a[label == mover.label].mean())
        assert mover.second == pytest.approx(100 * b[label == mover.label].mean())
    changes = [m.second - m.first for m in pair.movers]
    assert changes == sorted(changes)
    assert pair.p_adjusted >= pair.p


def test_classes_that_moved_are_named_where_the_record_says_how(make: Maker, tmp_path: Path) -> None:
    details = {"class_names": {str(label): f"class {label}" for label in range(9)}}
    for i, name in enumerate("ab"):
        make(name, seed=i, runs=tmp_path, details=details)
    comparison = run(tmp_path / "run-a.json", tmp_path / "run-b.json")
    movers = next(p for p in comparison.pairs if p.headline).movers
    assert {m.label: m.name for m in movers} == {**{label: f"class {label}" for label in range(9)}, 9: None}


def test_mean_per_class_is_bootstrapped_and_top5_unpaired(make: Maker, tmp_path: Path) -> None:
    comparison = run(*both(make, tmp_path))
    methods = {(p.suite, p.metric): p.method for p in comparison.pairs}
    assert methods["linear", "mean_per_class"] == "paired bootstrap"
    assert methods["knn", "top5"] == "unpaired"


def test_swapping_the_records_swaps_the_sign(make: Maker, tmp_path: Path) -> None:
    first, second = both(make, tmp_path)
    there, back = headline(run(first, second)), headline(run(second, first))
    assert back.difference == pytest.approx(-there.difference)
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert (there.verdict, back.verdict) == ("better", "worse")


def test_a_record_with_itself(make: Maker, tmp_path: Path) -> None:
    make("net-a", runs=tmp_path)
    comparison = run(tmp_path / "run-net-a.json", tmp_path / "run-net-a.json")
    assert {p.difference for p in comparison.pairs} == {0.0}
    assert {p.verdict for p in comparison.pairs} == {"no difference shown"}
    assert headline(comparison).flips.same_prediction == 100


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"protocol": "knn/other@1"}, r"protocol \(knn/dino@1 against knn/other@1\)"),
        ({"engine": Engine(name="faiss", version="9")}, r"engine \(faiss 1.15.1 against faiss 9\)"),
        ({"precision": "bf16"}, r"precision \(fp32 against bf16\)"),
        ({"fingerprint": "sha256:else"}, "data fingerprint"),
        ({"split": "val"}, r"split \(test against val\)"),
        ({"selection": "last"}, "selection rule"),
    ],
)
def test_what_is_not_comparable_is_said_plainly(make: Maker, tmp_path: Path, change: dict, says: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BenchError, match=f"not comparable: knn top1 differs in .*{says}"):
        run(*both(make, tmp_path, **change))


def test_partly_comparable_records_tell_both(make: Maker) -> None:
    first, second = make("net-a"), make("net-b", seed=2)
    for m in second.measurements:
        if m.suite == "linear":
            m.engine = Engine(name="torch", version="2")
    comparison = compare(first, second)
    assert len(comparison.pairs) == 8
    assert {(i.suite, i.metric) for i in comparison.incomparable} == {("linear", "top1"), ("linear", "mean_per_class")}
    assert "engine (scikit-learn 1.9.1 against torch 2)" in render(comparison)
    assert all(p.method == "unpaired" for p in comparison.pairs), "no ledger, nothing to pair"


def test_one_network_under_two_transforms_is_refused(make: Maker) -> None:
    first = make("net-a")
    second = first.model_copy(deep=True)
    assert second.model.transform is not None
    other = second.model.transform.model_copy(update={"crop": 192})
    second.model.transform = other
    for m in second.measurements:
        m.transform = other
    assert not compare(first, second).pairs
    second.model.weight_digest = "sha256:another network"
    assert len(compare(first, second).pairs) == 10


def test_other_samples_are_not_paired(make: Maker, tmp_path: Path) -> None:
    """Same fingerprint, other labels: the outcomes lie, and are not subtracted row by row."""
    first, second = both(make, tmp_path)
    record = next(r for r in Ledger(tmp_path).records() if r.name == "net-b")
    path = tmp_path / "artifacts" / "run-net-b" / "knn-k20-T0.07.npz"
    table = dict(np.load(path))
    np.savez(path, **{**table, "label": table["label"][::-1]})
    document = json.loads(second.read_text())
    document["artifacts"] = {}
    second.write_text(json.dumps(document))
    assert record.name == "net-b"
    pair = headline(run(first, second))
    assert pair.method == "unpaired"
    assert "labels differ" in pair.note


def test_missing_outcomes_fall_back_with_a_note(make: Maker, tmp_path: Path) -> None:
    first, second = both(make, tmp_path)
    (tmp_path / "artifacts" / "run-net-b" / "knn-k20-T0.07.npz").unlink()
    pair = headline(run(first, second))
    assert pair.method == "unpaired"
    assert "cannot be read" in pair.note
    paired_interval = headline(run(first, first)).interval
    assert pair.interval[1] - pair.interval[0] > paired_interval[1] - paired_interval[0]


def test_output_forms(make: Maker, tmp_path: Path) -> None:
    comparison = run(*both(make, tmp_path))
    document = json.loads(comparison.to_json())
    assert Comparison.model_validate(document) == comparison
    text = render(comparison)
    assert "net-b minus net-a" in text
    assert f"{headline(comparison).difference:+.2f}" in text
    assert "samples gained" in text
    assert "classes that gained most" in text


def test_files_that_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BenchError, match="not a bench record"):
        run(tmp_path / "x.json", tmp_path / "x.json")
    with pytest.raises(BenchError, match="no record at"):
        run(tmp_path / "nothing.json", tmp_path / "x.json")


def test_values_of_samples_are_paired_as_they_are(make: Maker, tmp_path: Path) -> None:
    """A divergence in natural units: Student's paired interval of the arrays that bear the metric's name."""
    values = {}
    for i, name in enumerate(("a", "b")):
        kl = np.random.default_rng(i).random(200).astype(np.float32)
        values[name] = kl.astype(float)
        given = {"metric": "kl", "unit": "", "higher_is_better": False, "value": float(kl.mean()), "interval": None}
        record = make(name, run=name, interval_note="bootstrap", **given)
        m = record.measurements[0].model_copy(update={"outcomes": artifact(name, "pair"), "headline": True})
        record.measurements = [m]
        table = {"label": np.zeros(200, int), "kl": kl, "correct": kl < 0.5}
        Ledger(tmp_path).add(record, {"pair": table})
    [pair] = run(tmp_path / "a.json", tmp_path / "b.json").pairs
    known = scipy.stats.ttest_rel(values["b"], values["a"])
    assert pair.method == "paired"
    assert pair.p == pytest.approx(known.pvalue)
    assert pair.interval == pytest.approx(tuple(known.confidence_interval(0.95)))
