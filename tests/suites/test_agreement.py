"""The agreement suite end to end on small stored features: numbers, intervals, pairing, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import bench
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.record import Measurement, Record
from suites.pairing import knows

CLASSES = np.array([3, 7, 8, 20])
"""Labels with gaps: column j of the logits is the j-th of them."""
N = {"train": 90, "test": 60}
CENTRES = np.random.default_rng(0).standard_normal((4, 6)) * 2


def network(folder: Path, name: str, noise: float, *, classifier: bool = True, **changes: Any) -> str:
    """A network that sees every sample through noise of its own; ``changes`` replace arrays of the test split."""
    (folder / name).mkdir()
    for split, n in N.items():
        world, own = np.random.default_rng(n), np.random.default_rng([n, *name.encode()])
        column = np.arange(n) % 4
        seen = CENTRES[column] + world.standard_normal((n, 6)) + noise * own.standard_normal((n, 6))
        arrays = {"x": seen.astype(np.float32), "y": CLASSES[column]}
        if classifier:
            arrays["logits"] = (seen @ CENTRES.T - 0.5 * np.square(CENTRES).sum(1)).astype(np.float32)
        if split == "test":
            arrays.update(changes)
        np.savez(folder / name / f"{split}.npz", **arrays)
    return f"features:{folder / name}"


def run(student: str, teacher: str | None, runs: Path | None = None, **settings: Any) -> Record:
    settings = {"agreement.replicates": 400} | {f"agreement.{key}": value for key, value in settings.items()}
    return bench.run(student, ["agreement"], teacher=teacher, settings=settings, runs=runs)


def one(record: Record, metric: str, split: str = "test", **settings: Any) -> Measurement:
    found = [
        m for m in record.measurements
        if m.metric == metric and m.split == split and all(m.settings.get(k) == v for k, v in settings.items())
        and ("between" in settings or "between" not in m.settings)
    ]  # fmt: skip
    assert len(found) == 1, [m.settings for m in found]
    return found[0]


def read(spec: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(spec.partition(":")[2]) / f"{split}.npz") as file:
        return file["logits"].astype(np.float64), np.searchsorted(CLASSES, file["y"])


def test_every_number_of_both_splits_is_a_second_computations(tmp_path: Path) -> None:
    from sklearn.metrics import cohen_kappa_score

    student, teacher = network(tmp_path, "s", 2.0), network(tmp_path, "t", 1.5)
    record = run(student, teacher)
    for split in ("train", "test"):
        (s, y), (t, _) = read(student, split), read(teacher, split)
        a, b = s.argmax(1), t.argmax(1)
        p, q = log_softmax(t, axis=1), log_softmax(s, axis=1)
        u, v = log_softmax(t / 4, axis=1), log_softmax(s / 4, axis=1)
        expected = {
            ("agreement", None): 100 * (a == b).mean(),
            ("churn", None): 100 * (a != b).mean(),
            ("kappa", None): cohen_kappa_score(a, b),
            ("agreement_on_teacher_errors", None): 100 * (a == b)[b != y].mean(),
            ("kl", None): (np.exp(p) * (p - q)).sum(1).mean(),
            ("hinton_kl", None): 16 * (np.exp(u) * (u - v)).sum(1).mean(),
            ("tv", None): np.abs(np.exp(p) - np.exp(q)).sum(1).mean() / 2,
            ("negative_flips", ("of", "all")): 100 * ((b == y) & (a != y)).mean(),
            ("negative_flips", ("of", "teacher_right")): 100 * (a != y)[b == y].mean(),
            ("positive_flips", ("of", "teacher_wrong")): 100 * (a == y)[b != y].mean(),
            ("top1", ("network", "student")): 100 * (a == y).mean(),
            ("top1", ("network", "teacher")): 100 * (b == y).mean(),
            ("nll", ("network", "student")): -q[np.arange(len(y)), y].mean(),
            ("brier", ("network", "student")): np.square(softmax(s, axis=1) - np.eye(4)[y]).sum(1).mean(),
            ("gain", ("over", "teacher")): 100 * ((a == y).mean() - (b == y).mean()),
        }
        for (metric, setting), value in expected.items():
            m = one(record, metric, split, **dict([setting] if setting else []))
            assert m.value == pytest.approx(value, abs=1e-5), (metric, setting, split)
            assert m.interval is not None
            assert m.interval[0] <= m.value <= m.interval[1]
            assert m.settings["logits"] == "own"
            assert m.unit == ("%" if metric not in {"kappa", "kl", "hinton_kl", "tv", "nll", "brier"} else "")
        assert one(record, "negative_flips", split, of="teacher_right").n == (b == y).sum()
    assert [m.metric for m in record.measurements if m.headline] == ["agreement"]
    assert one(record, "agreement").headline
    assert record.teacher is not None
    assert record.teacher.name == "t"


def test_intervals_cover_and_shrink(tmp_path: Path) -> None:
    """The bootstrap interval of the agreement is the binomial's but for its steps."""
    from bench.stats import wilson

    record = run(network(tmp_path, "s", 2.0), network(tmp_path, "t", 0.5), replicates=4000)
    m = one(record, "agreement", "train")
    assert m.interval_method == "paired bootstrap"
    low, high = wilson(round(m.value * 0.9), 90)
    assert m.interval == pytest.approx((100 * low, 100 * high), abs=3.0)


def test_a_network_against_itself(tmp_path: Path) -> None:
    same = network(tmp_path, "t", 1.5)
    record = run(same, same)
    for metric, value in (("agreement", 100), ("churn", 0), ("kappa", 1), ("kl", 0), ("hinton_kl", 0), ("js", 0),
                          ("tv", 0), ("agreement_on_teacher_errors", 100)):  # fmt: skip
        assert one(record, metric).value == value
    assert one(record, "agreement").interval_method == "wilson"
    assert one(record, "agreement").interval[0] < 100
    assert one(record, "negative_flips", of="all").value == 0
    assert one(record, "gain", over="teacher").value == 0


def test_probes_supply_logits_where_a_classifier_is_missing(tmp_path: Path) -> None:
    student, teacher = network(tmp_path, "s", 1.0), network(tmp_path, "t", 0.5, classifier=False)
    record = run(student, teacher, C=1.0)
    assert {m.settings["logits"] for m in record.measurements} == {"probe"}
    m = one(record, "agreement")
    assert m.details["probes"]["student"]["C"] == m.details["probes"]["teacher"]["C"] == 1.0
    assert m.protocol == "agreement/stanton@1+C=1+replicates=400"
    from sklearn.linear_model import LogisticRegression

    predictions = []
    for spec in (student, teacher):
        folder = Path(spec.partition(":")[2])
        with np.load(folder / "train.npz") as a, np.load(folder / "test.npz") as b:
            model = LogisticRegression(C=1.0, max_iter=2000, tol=1e-8).fit(a["x"], a["y"])
            predictions.append(model.predict(b["x"]))
    assert m.value == pytest.approx(100 * (predictions[0] == predictions[1]).mean(), abs=100 / 60 + 1e-9)
    with pytest.raises(BenchError, match="logits=own cannot be: 't' has no classifier of its own"):
        run(student, teacher, logits="own")
    assert one(run(student, student, logits="probe", C=1.0), "kl").settings["logits"] == "probe"


def test_baselines_and_ensembles(tmp_path: Path) -> None:
    specs = {name: network(tmp_path, name, noise) for name, noise in
             (("t", 0.1), ("t2", 0.2), ("s", 0.8), ("kd", 1.8), ("plain", 4.0), ("other", 0.3))}  # fmt: skip
    record = run(
        specs["s"], specs["t"], baseline=specs["plain"], reference=specs["kd"], independent=specs["other"],
        ensemble=[specs["t2"]],
    )  # fmt: skip
    logits = {name: read(spec, "train") for name, spec in specs.items()}
    y = logits["t"][1]
    mean = (softmax(logits["t"][0], axis=1) + softmax(logits["t2"][0], axis=1)) / 2
    top = {name: 100 * (found[0].argmax(1) == y).mean() for name, found in logits.items()}
    student = logits["s"][0].argmax(1)
    assert one(record, "agreement", "train").value == pytest.approx(100 * (mean.argmax(1) == student).mean())
    assert not [m for m in record.measurements if m.metric == "hinton_kl"]  # an ensemble has no logits
    assert one(record, "gain", "train", over="baseline").value == pytest.approx(top["s"] - top["plain"])
    teacher = 100 * (mean.argmax(1) == y).mean()
    assert one(record, "gap_closed", "train").value == pytest.approx(
        100 * (top["s"] - top["plain"]) / (teacher - top["plain"])
    )
    relative = one(record, "relative_improvement", "train")
    assert relative.value == pytest.approx(100 * (top["s"] - top["kd"]) / (top["kd"] - top["plain"]))
    between = one(record, "agreement", "train", between="independent and student")
    assert between.value == pytest.approx(100 * (logits["other"][0].argmax(1) == student).mean())
    assert one(record, "agreement", "train", between="baseline and teacher").value == pytest.approx(
        100 * (logits["plain"][0].argmax(1) == mean.argmax(1)).mean()
    )
    assert "+baseline" not in relative.protocol  # what is compared makes no variant of how
    assert set(relative.details["networks"]) == {
        "student", "teacher", "teacher2", "baseline", "reference", "independent"
    }  # fmt: skip


def test_a_reference_within_its_noise_gives_no_relative_improvement(tmp_path: Path) -> None:
    plain, kd = network(tmp_path, "plain", 2.0), network(tmp_path, "kd", 1.9)
    record = run(network(tmp_path, "s", 0.5), network(tmp_path, "t", 0.1), baseline=plain, reference=kd)
    assert not [m for m in record.measurements if m.metric == "relative_improvement"]


def test_undefined_metrics_are_left_out(tmp_path: Path) -> None:
    perfect = np.eye(4, dtype=np.float32)[np.arange(60) % 4] * 9
    right = network(tmp_path, "right", 0.1, logits=perfect)
    always = network(tmp_path, "always", 0.1, logits=np.tile(np.float32([1, 0, 0, 0]), (60, 1)))
    record = run(right, right, splits=["test"])
    metrics = {(m.metric, m.settings.get("of")) for m in record.measurements}
    assert ("agreement_on_teacher_errors", None) not in metrics
    assert ("positive_flips", "teacher_wrong") not in metrics
    assert one(record, "kappa").value == 1
    metrics = {m.metric for m in run(always, always, splits=["test"]).measurements}
    assert "kappa" not in metrics
    assert "agreement" in metrics


def test_outcomes_pair_with_those_of_another_student(tmp_path: Path) -> None:
    teacher = network(tmp_path, "t", 0.5)
    record = run(network(tmp_path, "s", 2.0), teacher, runs=tmp_path / "runs")
    m = one(record, "agreement")
    table = Ledger(tmp_path / "runs").outcomes(record, m.outcomes)
    assert m.value == pytest.approx(100 * table["correct"].mean())
    assert set(np.unique(table["label"])) <= set(CLASSES.tolist())
    assert one(record, "kl").value == pytest.approx(table["kl"].mean(), rel=1e-5)
    top = Ledger(tmp_path / "runs").outcomes(record, one(record, "top1", network="student").outcomes)
    assert one(record, "top1", network="student").value == pytest.approx(100 * top["correct"].mean())
    assert (top["label"] == CLASSES[np.arange(60) % 4]).all()


def test_same_seed_same_record_other_seed_other_interval(tmp_path: Path) -> None:
    student, teacher = network(tmp_path, "s", 2.0), network(tmp_path, "t", 0.5)
    settings = {"agreement.replicates": 200, "agreement.splits": "test"}
    a, b, c = (
        bench.run(student, ["agreement"], teacher=teacher, settings=settings, seed=seed) for seed in (0, 0, 1)
    )  # fmt: skip
    assert one(a, "kl").interval == one(b, "kl").interval != one(c, "kl").interval
    assert one(a, "kl").value == one(c, "kl").value


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"y": CLASSES[(np.arange(60) + 1) % 4]}, r"other labels than the student .* \(first: sample 0\)"),
        ({"ids": np.array([f"img{i + 1}" for i in range(60)])}, r"other sample ids .* \(first: 'img1' for 'img0'\)"),
    ],
)
def test_other_samples_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    student = network(tmp_path, "s", 1.0, ids=np.array([f"img{i}" for i in range(60)]))
    with pytest.raises(BenchError, match=sentence):
        run(student, network(tmp_path, "t", 0.5, **changes))


def test_ids_on_one_side_alone_leave_the_labels_to_judge(tmp_path: Path) -> None:
    student = network(tmp_path, "s", 1.0, ids=np.array([f"img{i}" for i in range(60)]))
    assert one(run(student, network(tmp_path, "t", 0.5)), "agreement").n == 60


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tau": 0.0}, "tau is a number above 0"),
        ({"bins": 0}, "bins is a number of at least 1"),
        ({"splits": ["val"]}, "splits is train or test"),
        ({"logits": "theirs"}, "auto, own or probe"),
        ({"replicates": 5}, "at least 100"),
        ({"reference": "features:x"}, "needs agreement.baseline"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    same = network(tmp_path, "t", 1.5)
    with pytest.raises(BenchError, match=sentence):
        run(same, same, **settings)


def test_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--teacher"):
        run(network(tmp_path, "s", 1.0), None)


def test_label_sets() -> None:
    assert knows("imagenet-1k", "imagenet")
    assert knows("cifar100", "CIFAR-100")
    assert knows("fashion-mnist", "demo")
    assert knows("fashion-mnist", "demo[40 of 1000]"), "a part has the classes of the whole"
    assert not knows("imagenet-1k", "cifar100")
    assert not knows(None, "imagenet")


def test_what_says_that_the_samples_are_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.progress import Progress

    plain = network(tmp_path, "student", 1.0), network(tmp_path, "teacher", 0.3)
    named = network(tmp_path, "student_named", 1.0), network(tmp_path, "teacher_named", 0.3)
    for folder in ("student_named", "teacher_named"):
        for split, n in N.items():
            with np.load(tmp_path / folder / f"{split}.npz") as file:
                arrays = dict(file)
            np.savez(
                tmp_path / folder / f"{split}.npz", **arrays, ids=np.array([f"sample {i} of {n}" for i in range(n)])
            )
    for (student, teacher), by in ((plain, "labels"), ((named[0], plain[1]), "labels"), (named, "ids")):
        record = bench.run(
            student, ["agreement"], teacher=teacher, progress=Progress(),
            settings={"agreement.replicates": 100, "agreement.splits": "test", "agreement.logits": "own"},
        )  # fmt: skip
        networks = record.measurements[0].details["networks"]
        assert networks["teacher"]["same_samples_by"] == by
        assert "same_samples_by" not in networks["student"]
        assert ("told by equal labels alone: save 'ids'" in capsys.readouterr().err) == (by == "labels")
