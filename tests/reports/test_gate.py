"""The gate on ledgers: pairing, verdicts, exit codes, sources and forms."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from recordhelp import Maker

from bench.errors import BenchError
from bench.ledger import Ledger
from bench.record import Engine
from reports import gate, gateforms, tolerance
from reports.gate import Report


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sides(make: Maker, before: dict[str, Any], after: dict[str, Any], **options: Any) -> Report:
    make(**before, run="before", runs=Path("old"))
    make(**after, run="after", runs=Path("new"))
    return gate.run("old", "new", **options)


def outcomes(report: Report) -> dict[str, str]:
    return {v.suite: v.outcome for v in report.verdicts}


def test_the_same_outcomes_pass(make: Maker) -> None:
    report = sides(make, {}, {})
    assert outcomes(report) == {"knn": "pass", "linear": "pass"}
    assert [v.metric for v in report.verdicts] == ["top1", "top1"], "one headline per suite, not every k"
    assert report.verdicts[0].settings["k"] == 20
    assert {v.method for v in report.verdicts} == {"identical outcomes"}
    assert report.exit_code == 0


def kept(make: Maker, side: str, ap: list[float] | None, value: float = 50.0, weights: str = "net-a") -> None:
    """A number whose outcomes are no hits: retrieval's average precisions, or a suite that keeps none."""
    made = make(runs=None)
    tables = {} if ap is None else {"retrieval-queries": {"ap": np.array(ap), "query": np.arange(len(ap))}}
    m = made.measurements[0].model_copy(
        update={
            "suite": "retrieval", "metric": "map", "headline": True, "value": value, "interval": (45.0, 55.0),
            "outcomes": None if ap is None else f"artifacts/run-{side}/retrieval-queries.npz",
        }
    )  # fmt: skip
    model = made.model.model_copy(update={"weight_digest": f"sha256:{weights}"})
    record = made.model_copy(update={"run": f"run-{side}", "measurements": [m], "model": model})
    Ledger(side).add(record, tables)


@pytest.mark.parametrize(
    ("ap", "other", "value", "weights", "outcome"),
    [
        ([0.2, 0.8], [0.2, 0.8], 50.0, "net-a", "pass"),
        # The same mean of other outcomes is no repetition.
        ([0.2, 0.8], [0.8, 0.2], 50.0, "net-a", "inconclusive"),
        (None, None, 50.0, "net-a", "pass"),
        (None, None, 50.1, "net-a", "inconclusive"),
        (None, None, 50.0, "net-b", "inconclusive"),
    ],
)
def test_a_repetition_passes_whatever_a_suite_keeps(
    make: Maker, ap: list[float] | None, other: list[float] | None, value: float, weights: str, outcome: str
) -> None:
    kept(make, "old", ap)
    kept(make, "new", other, value, weights)
    (verdict,) = gate.run("old", "new").verdicts
    assert verdict.outcome == outcome


def test_names_with_a_dot_need_no_quotes(make: Maker) -> None:
    Path("gate.toml").write_text(
        '[tolerance]\nknn.top1 = 7\n"linear.top1" = 8\n[training.seed_deviation]\nknn.top1 = 2\n'
    )
    limits = tolerance.load()
    assert (limits.tolerance["knn.top1"], limits.tolerance["linear.top1"]) == (7, 8)
    assert limits.training.seed_deviation["knn.top1"] == 2


def test_a_large_loss_is_regressed(make: Maker) -> None:
    report = sides(make, {"accuracy": 0.9}, {"accuracy": 0.6})
    assert set(outcomes(report).values()) == {"regressed"}
    assert report.exit_code == 1
    verdict = report.verdicts[0]
    tables = [
        np.load(f"{side}/artifacts/{run}/knn-k20-T0.07.npz") for side, run in (("old", "before"), ("new", "after"))
    ]
    change = tables[1]["correct"].astype(float) - tables[0]["correct"]
    assert verdict.difference == pytest.approx(100 * change.mean())
    assert verdict.method == "paired"
    assert verdict.interval[1] < 0
    assert "lost" in verdict.reason


def test_a_gain_is_improved_and_the_sign_follows_the_metric(make: Maker) -> None:
    assert set(outcomes(sides(make, {"accuracy": 0.6}, {"accuracy": 0.9})).values()) == {"improved"}


def test_lower_is_better(make: Maker) -> None:
    lower = {"higher_is_better": False, "metric": "churn"}
    report = sides(make, {"accuracy": 0.6, **lower}, {"accuracy": 0.9, **lower})
    assert set(outcomes(report).values()) == {"regressed"}
    assert report.verdicts[0].difference > 0
    assert report.verdicts[0].interval[0] > 0


def test_too_few_samples_are_inconclusive_and_say_how_many_do(make: Maker) -> None:
    report = sides(make, {"n": 300}, {"n": 300, "seed": 2})
    assert set(outcomes(report).values()) == {"inconclusive"}
    assert report.exit_code == 2
    for verdict in report.verdicts:
        assert verdict.needed > 300
        assert f"{verdict.needed:,} are needed" in verdict.reason
    assert gate.run("old", "new", allow_inconclusive=True).exit_code == 0


def test_regressed_outranks_inconclusive_even_when_that_is_allowed(make: Maker) -> None:
    report = sides(make, {"accuracy": 0.9}, {"accuracy": 0.5})
    report.verdicts[1].outcome = "inconclusive"
    assert gate.exit_code(report.verdicts, allow_inconclusive=True) == 1


def test_missing_suites_and_names(make: Maker) -> None:
    make(run="before", runs=Path("old"))
    record = make(run="after")
    make(run="after", runs=Path("new"), measurements=[m for m in record.measurements if m.suite == "knn"])
    report = gate.run("old", "new")
    assert outcomes(report) == {"knn": "pass", "linear": "missing"}
    assert report.exit_code == 2
    make("net-b", runs=Path("other"))
    report = gate.run("old", "other")
    assert set(outcomes(report).values()) == {"missing"}
    assert "no model named 'net-a'; nearest: net-b" in report.verdicts[0].reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"protocol": "knn/other@2"}, "protocol (knn/dino@1 against knn/other@2)"),
        ({"fingerprint": "sha256:else"}, "data fingerprint"),
        ({"split": "val"}, "split"),
        ({"precision": "bf16"}, "precision"),
        ({"selection": "last"}, "selection rule"),
        ({"engine": Engine(name="torch", version="2")}, "engine"),
        ({"train_fingerprint": "sha256:else"}, "training data"),
    ],
)
def test_incomparable_is_said(make: Maker, change: dict[str, Any], says: str) -> None:
    report = sides(make, {}, change)
    assert outcomes(report)["knn"] == "incomparable"
    assert says in report.verdicts[0].reason
    assert report.exit_code == 2


def test_library_upgrades_are_judged_when_asked(make: Maker) -> None:
    newer = {"engine": Engine(name="faiss", version="9")}
    report = sides(make, {"engine": Engine(name="faiss", version="8")}, newer)
    assert set(outcomes(report).values()) == {"incomparable"}
    assert "engine_versions" in report.verdicts[0].reason
    Path("gate.toml").write_text('engine_versions = "any"\n')
    assert set(outcomes(gate.run("old", "new")).values()) == {"pass"}


def test_repeats_are_pooled(make: Maker) -> None:
    for i in range(3):
        make(run=f"old{i}", seed=i, runs=Path("old"))
    make(run="new", seed=9, runs=Path("new"))
    verdict = gate.run("old", "new").verdicts[0]
    assert verdict.reference_runs == ["old0", "old1", "old2"]
    tables = [np.load(f"old/artifacts/old{i}/knn-k20-T0.07.npz")["correct"] for i in range(3)]
    assert verdict.reference == pytest.approx(100 * np.mean(tables))
    assert verdict.method == "paired"


def test_without_outcomes_the_intervals_speak(make: Maker) -> None:
    paired = sides(make, {"accuracy": 0.8}, {"accuracy": 0.8, "seed": 4}).verdicts[0]
    make(run="x", outcomes=None, runs=Path("o2"))
    make(run="y", seed=4, outcomes=None, runs=Path("n2"))
    unpaired = gate.run("o2", "n2").verdicts[0]
    assert unpaired.method == "unpaired"
    assert "no per-sample outcomes" in unpaired.notes[0]
    assert unpaired.interval[1] - unpaired.interval[0] == pytest.approx(
        paired.interval[1] - paired.interval[0], rel=0.3
    )  # independent outcomes here, so pairing neither helps nor hurts


def test_nothing_known_is_inconclusive(make: Maker) -> None:
    bare = {"outcomes": None, "interval": None, "interval_note": "not computed"}
    report = sides(make, {**bare, "accuracy": 0.9}, {**bare, "accuracy": 0.5})
    assert set(outcomes(report).values()) == {"inconclusive"}
    make(**bare, run="z", accuracy=0.9, runs=Path("z"))
    assert set(outcomes(gate.run("old", "z")).values()) == {"pass"}, "equal values need no interval"


def test_training_mode_needs_to_know_the_deviation(make: Maker) -> None:
    with pytest.raises(BenchError, match=r"needs 3 baseline trainings of 'net-a' for knn \(there are 1\)"):
        sides(make, {}, {"seed": 2}, mode="training")
    Path("gate.toml").write_text("[training.seed_deviation]\nknn = 0.5\nlinear = 0.5\n")
    numerics, training = gate.run("old", "new"), gate.run("old", "new", mode="training")
    for quiet, noisy in zip(numerics.verdicts, training.verdicts, strict=True):
        error = (quiet.interval[1] - quiet.interval[0]) / 2 / 1.959964
        wider = (noisy.interval[1] - noisy.interval[0]) / 2 / 1.959964
        assert wider**2 == pytest.approx(error**2 + 2 * 0.5**2)


def test_three_records_of_one_training_are_one_training(make: Maker) -> None:
    for i in range(3):
        make(run=f"old{i}", seed=i, runs=Path("old"))
    make(run="new", seed=9, runs=Path("new"))
    with pytest.raises(BenchError, match="there are 1"):
        gate.run("old", "new", mode="training")
    for i in range(3):
        card = make().model.model_copy(update={"weight_digest": f"sha256:{i}"})
        make(run=f"t{i}", seed=i, model=card, runs=Path("trained"))
    report = gate.run("trained", "new", mode="training")
    assert all(v.interval is not None for v in report.verdicts)


def test_other_weights_in_numerics_mode_are_noted(make: Maker) -> None:
    card = make().model.model_copy(update={"weight_digest": "sha256:other"})
    report = sides(make, {}, {"seed": 2, "model": card})
    assert any("the weights differ" in note for note in report.verdicts[0].notes)
    assert any("of the predictions are the same" in note for note in report.verdicts[0].notes)


def test_outcomes_of_other_samples_are_not_paired(make: Maker) -> None:
    make(run="before", runs=Path("old"))
    record = make(run="after", seed=2, runs=Path("new"))
    table = Path("new") / record.measurements[2].outcomes
    arrays = dict(np.load(table))
    np.savez(table, **{**arrays, "label": arrays["label"][::-1]})
    document = json.loads(Path("new/after.json").read_text())
    Path("new/after.json").write_text(json.dumps({**document, "artifacts": {}}))
    verdict = gate.run("old", "new").verdicts[0]
    assert verdict.method == "unpaired"
    assert "labels differ" in verdict.notes[0]


def test_mean_per_class_is_judged_by_class(make: Maker) -> None:
    def only(**given: Any) -> None:
        record = make(**given)
        m = next(m for m in record.measurements if m.metric == "mean_per_class")
        make(**given, measurements=[m.model_copy(update={"headline": True})], runs=Path(given["run"]))

    only(run="before", accuracy=0.9)
    only(run="after", accuracy=0.6)
    [verdict] = gate.run("before", "after").verdicts
    assert (verdict.metric, verdict.outcome, verdict.method) == ("mean_per_class", "regressed", "paired")


def git(*arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments], check=True, capture_output=True
    )  # fmt: skip


def test_a_baseline_in_git(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(run="before", runs=Path("base/line"))
    git("init", "-q")
    git("add", "base")
    git("commit", "-qm", "x")
    git("tag", "v1")
    git("rm", "-rq", "base")
    git("commit", "-qm", "y")
    make(run="after", runs=Path("new"))
    for spec in ("git:v1:base/line", "git:v1:base/line/before.json", "git:HEAD~1:base/line"):
        report = gate.run(spec, "new")
        assert {v.method for v in report.verdicts} == {"identical outcomes"}, spec
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert gate.run("git:v1:base/line", "../new").exit_code == 0, "paths are those of the repository"
    for spec, says in {
        "git:nothing:base": "cannot be read from git",
        "git:HEAD:base/line": "cannot be read from git",
        "git:v1": "not of the form git:REF:path",
        "git:--output=x:base": "not of the form",
        "git:v1:../x": "must lie in the repository",
    }.items():
        with pytest.raises(BenchError, match=says):
            gate.run(spec, "../new")


def test_sources_that_cannot_be_judged(make: Maker) -> None:
    make(run="after", runs=Path("new"))
    Path("empty").mkdir()
    for spec, says in {"empty": "no records in", "nowhere": "no record at"}.items():
        with pytest.raises(BenchError, match=says):
            gate.run(spec, "new")
    record = make(run="quiet")
    make(
        run="quiet",
        measurements=[m.model_copy(update={"headline": False}) for m in record.measurements],
        runs=Path("q"),
    )
    with pytest.raises(BenchError, match="nothing to gate"):
        gate.run("q", "new")
    assert gate.run("new/after.json", "new").exit_code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "not TOML"),
        ("surprise = 1", "wrong at surprise"),
        ("[tolerance]\nknn = -1", "zero or more"),
        ("[tolerance]\nknn = nan", "zero or more"),
        ("[tolerance]\nknn = 'wide'", "the tolerance of 'knn' is a number"),
        ("[tolerance]\nknn = true", "the tolerance of 'knn' is a number"),
        ("[tolerance]\nknn = '-5%'", "the tolerance of 'knn' is a number"),
        ("[training.seed_deviation]\nknn = 0", "positive"),
        ("confidence = 1.5", "wrong at confidence"),
        ("[tolerance]\nknnn = 0.1", "no suite is called 'knnn'; nearest: knn"),
        ("[tolerance]\nlinaer.top1 = 0.1", "speak of 'linaer.top1'"),
        ("[training.seed_deviation]\n'knm/dino' = 0.1", "speak of 'knm/dino'"),
    ],
)
def test_settings_that_make_no_sense(text: str, says: str) -> None:
    Path("gate.toml").write_text(text)
    with pytest.raises(BenchError, match=says):
        tolerance.load()
    with pytest.raises(BenchError, match="cannot be read"):
        tolerance.load("missing.toml")


def test_the_most_specific_tolerance_wins(make: Maker) -> None:
    limits = tolerance.load()
    m = make().measurements[0]
    changed = m.model_copy(update={"suite": "linear", "protocol": "linear/logreg@1+C=0.01"})
    assert limits.of(m) == 0.05
    assert limits.of(changed) == 0.05
    assert limits.of(changed.model_copy(update={"protocol": "linear/mae@1"})) == 0.2
    assert limits.of(m.model_copy(update={"suite": "unheard", "protocol": "unheard/x@1"})) == 0.2
    assert limits.of(m.model_copy(update={"suite": "unheard", "protocol": "unheard/x@1", "unit": ""})) is None
    transfer = m.model_copy(update={"suite": "transfer", "protocol": "transfer/pets@1", "value": 76.0, "n": 3669})
    assert limits.of(transfer) == pytest.approx(1.41, abs=0.01)
    assert limits.of(transfer.model_copy(update={"value": 95.0})) == pytest.approx(0.72, abs=0.01)
    assert limits.of(transfer.model_copy(update={"value": 100.0})) > 0


def test_forms(make: Maker) -> None:
    evil = 'net|<b>"\n::error::x\x1b[2J\x00'
    make(evil, run="before", accuracy=0.9, runs=Path("old"))
    make(evil, run="after", accuracy=0.5, runs=Path("new"))
    report = gate.run("old", "new")
    assert Report.model_validate_json(report.to_json()) == report
    suite = ElementTree.fromstring(gateforms.junit(report))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "2", "0")
    assert suite.find("testcase/failure").get("message") == report.verdicts[0].reason
    summary = gateforms.markdown(report)
    assert "**regressed**" in summary
    assert "<b>" not in summary
    table = [line for line in summary.splitlines() if line.startswith("|")]
    assert len(table) == 4
    commands = gateforms.workflow_commands(report).splitlines()
    assert [c.split(" ")[0] for c in commands] == ["::error", "::error", "::notice"]
    text = gateforms.render(report)
    assert text.splitlines()[-1] == report.sentence == "regressed: 2 regressed of 2 in mode numerics"
    assert "\x1b" not in text


def test_forms_of_what_cannot_be_judged(make: Maker) -> None:
    report = sides(make, {"n": 300}, {"n": 300, "seed": 2})
    suite = ElementTree.fromstring(gateforms.junit(report))
    assert (suite.get("failures"), suite.get("errors"), suite.get("skipped")) == ("0", "2", "0")
    allowed = ElementTree.fromstring(gateforms.junit(gate.run("old", "new", allow_inconclusive=True)))
    assert (allowed.get("errors"), allowed.get("skipped")) == ("0", "2")
    assert gateforms.workflow_commands(report).startswith("::warning ")


def test_every_name_of_the_defaults_is_one_of_a_suite_or_recipe() -> None:
    """A tolerance under a name that nothing bears would quietly never hold."""
    from bench import protocol
    from bench.registry import table

    suites = set(table("suites"))
    recipes = {name.partition("@")[0] for name in protocol.cards()}
    limits = tolerance.load()
    for name in [*limits.tolerance, *limits.training.seed_deviation]:
        assert name == "default" or name.partition(".")[0] in suites | recipes, name
    assert limits.tolerance["knn"] == limits.tolerance["linear/logreg"] == 0.05
    published = {"linear": 0.2, "finetune": 0.25, "coco": 0.3, "ade20k": 0.5, "voc07": 0.4, "voc07.box_ap75": 0.8}
    assert {name: limits.tolerance[name] for name in published} == published
    assert limits.tolerance["inat18"] == 0.3


def test_a_share_of_the_reference_is_a_tolerance(make: Maker) -> None:
    Path("gate.toml").write_text("[tolerance]\nknn = '50%'\nlinear = '0.01%'\n")
    report = sides(make, {"accuracy": 0.8}, {"accuracy": 0.75, "seed": 3})
    knn, linear = report.verdicts
    assert knn.tolerance == pytest.approx(knn.reference / 2)
    assert knn.outcome == "pass"
    assert linear.outcome != "pass"


def test_the_same_outcomes_need_no_tolerance(make: Maker) -> None:
    natural = {"unit": "", "metric": "likeness", "suite": "unheard", "protocol": "unheard/x@1"}
    report = sides(make, natural, natural)
    assert set(outcomes(report).values()) == {"pass"}
    make(run="other", seed=5, accuracy=0.5, runs=Path("other"), **natural)
    report = gate.run("old", "other")
    assert set(outcomes(report).values()) == {"inconclusive"}
    assert 'write "unheard.likeness" = X below [tolerance]' in report.verdicts[0].reason
