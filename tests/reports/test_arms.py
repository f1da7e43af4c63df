"""Two arms of trainings: Welch by scipy, the bootstrap by its variance, claims and refusals, from the command line."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordhelp import Maker, accuracy_measurement, card, outcomes
from scipy import stats

from bench.cli import app
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.paired import accuracy_difference
from reports.arms import hierarchical, render, run, welch
from reports.comparetext import render as render_pair


def arm(folder: Path, make: Maker, name: str, accuracies: list[float], n: int = 2000, **changes: Any) -> Path:
    """A record a training, each of its own weights, on the same samples."""
    for i, accuracy in enumerate(accuracies):
        run_ = f"run-{name}-{i}"
        table = outcomes(sum(map(ord, name)) * 100 + i, accuracy, n)
        m = accuracy_measurement(table, run_, "knn", headline=True, **changes)
        made = make(f"{name}-{i}", run=run_, measurements=[m], model=card(f"{name}-{i}"))
        Ledger(folder).add(made, {"knn": table})
    return folder


def test_five_trainings_an_arm_carry_a_claim(make: Maker, tmp_path: Path) -> None:
    plain = arm(tmp_path / "plain", make, "plain", [0.70, 0.705, 0.71, 0.70, 0.695])
    better = arm(tmp_path / "kd", make, "kd", [0.80, 0.805, 0.79, 0.81, 0.80])
    found = run(plain, better)
    [effect] = found.effects
    test = stats.ttest_ind(effect.second.values, effect.first.values, equal_var=False)
    assert effect.p == pytest.approx(test.pvalue)
    assert effect.welch == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert effect.difference == pytest.approx(np.mean(effect.second.values) - np.mean(effect.first.values))
    assert effect.hierarchical is not None
    assert effect.hierarchical[0] < effect.difference < effect.hierarchical[1]
    assert effect.verdict == "better"
    assert found.claim == "over 5 and 5 trainings the second arm is better in knn top1 (fashion-mnist)"
    [back] = run(better, plain).effects
    assert back.verdict == "worse"
    assert back.difference == pytest.approx(-effect.difference)
    text = render(found)
    assert "Welch 95%" in text
    assert found.claim in text


def test_noise_between_trainings_is_no_method(make: Maker, tmp_path: Path) -> None:
    one = arm(tmp_path / "one", make, "one", [0.70, 0.74, 0.66, 0.72, 0.68])
    two = arm(tmp_path / "two", make, "two", [0.71, 0.75, 0.67, 0.73, 0.69])
    [effect] = run(one, two).effects
    assert effect.verdict == "not told apart"
    # One pair of them, on its own, would have said otherwise: it is of these two networks.
    a, b = outcomes(sum(map(ord, "one")) * 100 + 2, 0.66, 2000), outcomes(sum(map(ord, "two")) * 100 + 1, 0.75, 2000)
    assert accuracy_difference(a["correct"], b["correct"]).low > 0


def test_fewer_trainings_make_no_claim(make: Maker, tmp_path: Path) -> None:
    one = arm(tmp_path / "one", make, "one", [0.5, 0.51, 0.5, 0.49, 0.5])
    two = arm(tmp_path / "two", make, "two", [0.9, 0.91, 0.9, 0.9])
    found = run(one, two)
    assert [e.verdict for e in found.effects] == ["too few trainings"]
    assert found.claim.startswith("no claim about the method: 5 and 4 trainings, and 5 an arm are needed")
    single = arm(tmp_path / "single", make, "single", [0.5])
    with pytest.raises(BenchError, match="single holds 1 training .records of different weights.: an arm needs two"):
        run(one, single)
    with pytest.raises(BenchError, match="both hold records of the weights"):
        run(one, one)
    other = arm(tmp_path / "other", make, "other", [0.5, 0.6], protocol="knn/ibot@1")
    with pytest.raises(BenchError, match="no headline that every training has"):
        run(one, other)


def test_a_repeat_of_the_same_weights_is_no_training(make: Maker, tmp_path: Path) -> None:
    folder = arm(tmp_path / "one", make, "one", [0.5, 0.6])
    table = outcomes(5, 0.5, 2000)
    m = accuracy_measurement(table, "run-again", "knn", headline=True)
    Ledger(folder).add(make("one-0", run="run-z-again", measurements=[m.model_copy(update={"outcomes": None})],
                            model=card("one-0")))  # fmt: skip
    other = arm(tmp_path / "two", make, "two", [0.5, 0.6])
    found = run(folder, other)
    assert found.trainings == (2, 2)
    assert found.effects[0].first.runs == ["run-z-again", "run-one-1"]
    assert found.effects[0].hierarchical is None
    assert "no per-sample outcomes" in str(found.effects[0].note)


def test_bootstrap_has_the_variance_of_both_causes() -> None:
    """Against the plug-in variance of a crossed design: trainings within arms, images across them."""
    rng = np.random.default_rng(0)
    n, s = 400, 8
    hard = rng.random((n, 1))
    first, second = ((rng.random((n, s)) < hard * shift).astype(float) for shift in (0.9, 1.0))
    low, high = hierarchical(first, second, seed=1)
    images = np.var(second.mean(1) - first.mean(1)) / n
    trainings = sum(np.var(x.mean(0)) / s for x in (first, second))
    both = sum((x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()).var() / (n * s) for x in (first, second))
    assert (high - low) / (2 * 1.96) == pytest.approx(np.sqrt(images + trainings + both), rel=0.06)


def test_welch_of_trainings_that_are_all_alike() -> None:
    assert welch([1.0, 1.0], [1.0, 1.0]) == ((0.0, 0.0), 1.0)
    assert welch([1.0, 1.0], [2.0, 2.0]) == ((1.0, 1.0), 0.0)


def test_welch_of_one_arm_that_is_all_alike_says_nothing_on_the_screen() -> None:
    """Its degrees of freedom are then the other arm's: 1, whose 97.5 % quantile is 12.706."""
    first = [83.0, 83.1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (low, high), p = welch(first, [85.8, 85.8])
    half = 12.7062 * float(np.std(first, ddof=1)) / np.sqrt(2)
    assert (low, high) == pytest.approx((2.75 - half, 2.75 + half), abs=1e-4)
    assert 0 < p < 0.05


def test_from_the_command_line(make: Maker, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    plain = arm(tmp_path / "plain", make, "plain", [0.70, 0.705, 0.71, 0.70, 0.695])
    better = arm(tmp_path / "kd", make, "kd", [0.80, 0.805, 0.79, 0.81, 0.80])
    first, second = (next(iter(sorted(folder.glob("*.json")))) for folder in (plain, better))
    from reports.arms import run as arms
    from reports.compare import run as pair

    assert json.loads(arms(plain, better).to_json())["effects"][0]["verdict"] == "better"
    said = render_pair(pair(first, second))
    assert "these two networks differ in knn top1; what a method gains shows over training seeds" in said
    mixed = CliRunner().invoke(app, ["compare", str(plain), str(second)])
    assert isinstance(mixed.exception, BenchError)
    assert "two folders of records" in str(mixed.exception)
