"""Transfer: each set by its metric, missing ones named, the average only over whole ones; multi-label known answers."""

import numpy as np
import pytest
from listedhelp import write_cub, write_sun397, write_voc07cls
from sklearn.linear_model import LogisticRegression
from suitehelp import clusters, feature_set, task

import bench
from bench.errors import BenchError
from bench.progress import Progress
from suites import transfer_sets
from suites.logreg_multilabel import OneVsRest
from suites.transfer import Transfer
from suites.transfer_sets import SETS, VTAB, Set
from suites.validation import held_of, validation_of

MODEL = "demo:mobilenetv2@32"
FEW = {"transfer.points": 3, "transfer.max_iter": 50}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def whole(monkeypatch, **sizes):
    """Tiny archives pass for the published ones."""
    for name, (train, test) in sizes.items():
        monkeypatch.setitem(transfer_sets.SETS, name, SETS[name]._replace(train=train, test=test))


class Listening(Progress):
    def __init__(self):
        super().__init__(quiet=True)
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def run(sets, **more):
    return bench.run(MODEL, ["transfer"], settings={**FEW, "transfer.sets": sets}, workers=0, **more)


def test_every_set_by_its_metric_and_the_average(root, monkeypatch, tmp_path):
    write_cub(root)
    write_voc07cls(root)
    whole(monkeypatch, cub=(5, 3), voc07cls=(6, 3))
    record = run(["cub", "voc07cls"], runs=tmp_path / "runs")
    heads = {(m.dataset, m.metric): m for m in record.measurements if m.headline}
    assert set(heads) == {("cub", "top1"), ("voc07cls", "map11"), ("transfer-kornblith-2", "average")}
    cub, voc, average = heads.values()
    assert average.value == pytest.approx((cub.value + voc.value) / 2)
    assert average.details["metrics"] == {"cub": "top1", "voc07cls": "map11"}
    below = np.hypot(cub.value - cub.interval[0], voc.value - voc.interval[0]) / 2
    assert average.interval[0] == pytest.approx(max(0, average.value - below))
    assert voc.details["per_class"].keys() == {"cat", "dog"}
    assert len(voc.details["path"]) == 3
    assert cub.outcomes
    assert average.outcomes is None
    assert {m.selection for m in record.measurements} == {"holdout"}
    assert {"the test samples of cub", "the test samples of voc07cls"} <= set(record.inputs)


def test_a_missing_set_is_named_and_the_others_still_run(root):
    write_cub(root)
    heard = Listening()
    record = run(["cub", "pets", "dtd"], progress=heard)
    assert {m.dataset for m in record.measurements} == {"cub"}
    assert not [m for m in record.measurements if m.metric == "average"]
    said = "\n".join(heard.warnings)
    assert "transfer goes without pets: the data set 'pets' is not here" in said
    assert "transfer goes without dtd" in said


def test_a_set_that_is_not_whole_gives_its_number_and_no_average(root):
    write_cub(root)
    write_sun397(root)
    record = run(["cub", "sun397"])
    assert {m.dataset for m in record.measurements} == {"cub", "sun397"}
    assert record.measurements[0].details["published"] == {"train": 5994, "test": 5794}
    assert record.measurements[0].details["here"] == {"train": 5, "test": 3}


def test_refusals(root):
    with pytest.raises(BenchError, match=r"finds none of its data sets \(pets, dtd\); the first: .*'pets' is not here"):
        run(["pets", "dtd"])
    with pytest.raises(BenchError, match="leave --data demo out"):
        run(["pets"], data="demo")
    with pytest.raises(BenchError, match=r"transfer.sets is .*, not 'imagenet'"):
        run(["imagenet"])


@pytest.mark.parametrize("suite", ["ridge", "fewshot", "retrieval"])
def test_twenty_labels_an_image_are_not_one(root, suite):
    write_voc07cls(root)
    with pytest.raises(BenchError, match="labels"):
        bench.run(MODEL, [suite], "voc07cls", workers=0)


def test_the_svms_read_them_from_the_archive(root):
    write_voc07cls(root)
    settings = {"voc07cls.shots": 2, "voc07cls.draws": 2}
    record = bench.run(MODEL, ["voc07cls"], protocols={"voc07cls": "svm-lowshot"}, settings=settings, workers=0)
    (m,) = record.measurements
    assert (m.dataset, m.split, m.n, m.metric) == ("voc07cls", "test", 3, "map")
    assert m.details["classes_with_fewer_positives"] == 18
    with pytest.raises(BenchError, match="has 3 images with it and 3 without"):
        bench.run(MODEL, ["voc07cls"], settings={"voc07cls.costs": 1}, workers=0)


def test_stored_features_are_of_other_samples(tmp_path):
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=np.eye(4, dtype=np.float32), y=np.array([0, 1, 0, 1]))
    with pytest.raises(BenchError, match="brings data sets of its own: stored features"):
        bench.run(f"features:{tmp_path}", ["transfer"])


def test_beside_other_suites_data_is_theirs(root):
    write_cub(root)
    settings = {**FEW, "transfer.sets": "cub", "knn.k": 3, "knn.headline_k": 3}
    record = bench.run(MODEL, ["knn", "transfer"], "demo", settings=settings, workers=0, limit=6)
    assert {(m.suite, m.dataset.partition("[")[0]) for m in record.measurements} == {
        ("knn", "demo"), ("transfer", "cub")
    }  # fmt: skip


def test_the_published_tables():
    assert len(VTAB["natural"] + VTAB["specialized"] + VTAB["structured"]) == 19
    assert {name for name, row in SETS.items() if row.metric == "mean_per_class"} == {
        "aircraft", "pets", "caltech101", "flowers102",
    }  # fmt: skip
    for protocol, count in (("kornblith", 12), ("ericsson", 11), ("dinov2", 12), ("vtab1k-linear", 19)):
        made = task("transfer", clusters(), clusters(1), protocol=protocol)
        assert len(Transfer().data_sets(made.protocol)) == count


def probed(monkeypatch, metric, validation=None, **options):
    x, y = clusters(0, 160, 4)
    monkeypatch.setitem(transfer_sets.SETS, "cub", Set(metric, 160, 60))
    made = task("transfer", (x, y), clusters(1, 60, 4), sets="cub", points=5, **options)
    made.source = "cub"
    made.data["train"].validation = validation
    return list(Transfer().evaluate(made)), made


def test_the_headline_is_the_tables_metric(monkeypatch):
    for metric in ("top1", "mean_per_class"):
        found, _ = probed(monkeypatch, metric)
        assert [m.metric for m in found if m.headline] == [metric]
        assert found[0].details["whole"]


def test_the_penalty_is_chosen_on_the_published_validation_part(monkeypatch):
    held = np.arange(160) >= 120
    found, made = probed(monkeypatch, "top1", held)
    path = found[0].details["path"]
    train = made.data["train"]
    for point in path[:2]:
        model = LogisticRegression(C=point["C"], max_iter=2000, tol=1e-8).fit(
            train.array("pooled")[~held], train.labels[~held]
        )
        right = 100 * (model.predict(train.array("pooled")[held]) == train.labels[held]).mean()
        assert point["holdout_top1"] == pytest.approx(right, abs=2.6)
    assert found[0].details["chosen_on"] == "published validation part"
    assert probed(monkeypatch, "top1")[0][0].details["chosen_on"] == "hold-out"


def test_a_class_that_only_the_published_validation_part_shows_is_no_reason_to_draw_another():
    data = feature_set(np.eye(4), [0, 0, 1, 2])
    for held in ([False, False, False, True], [False, True, False, False]):
        data.validation = np.array(held)
        assert validation_of(data).tolist() == held
    for held in ([False, False, True, True], [True] * 4, [False] * 4):
        data.validation = np.array(held)
        assert validation_of(data) is None, "a single class, or nothing, is left to learn from or to choose on"
    made = task("transfer", (np.eye(8), np.arange(8) % 2), clusters())
    assert held_of(made, made.data["train"]).sum() > 0


def test_its_samples_of_that_class_are_wrong_for_every_penalty(monkeypatch):
    x, y = clusters(0, 160, 4)
    held = (np.arange(160) >= 120) | (y == 3)
    found, _ = probed(monkeypatch, "top1", held)
    details = found[0].details
    assert details["chosen_on"] == "published validation part"
    for point in details["path"][:2]:
        model = LogisticRegression(C=point["C"], max_iter=2000, tol=1e-8).fit(x[~held], y[~held])
        right = 100 * (model.predict(x[held]) == y[held]).mean()
        assert point["holdout_top1"] == pytest.approx(right, abs=1.5)
        assert point["holdout_top1"] <= 100 * (y[held] != 3).mean()


def test_the_penalty_is_chosen_by_the_metric_of_the_table(monkeypatch):
    rng = np.random.default_rng(3)
    # A large class and two small ones that overlap with it: a strong penalty answers the large one throughout.
    y = np.array([0] * 140 + [1] * 10 + [2] * 10)[rng.permutation(160)]
    x = (np.eye(3)[y] * 2.0 + rng.standard_normal((160, 3))).astype(np.float32)
    held = np.arange(160) % 2 == 0
    monkeypatch.setitem(transfer_sets.SETS, "pets", Set("mean_per_class", 160, 160))
    made = task("transfer", (x, y), (x, y), sets="pets", points=9)
    made.source = "pets"
    made.data["train"].validation = held
    details = next(iter(Transfer().evaluate(made))).details
    by_class, by_sample = {}, {}
    for point in details["path"]:
        model = LogisticRegression(C=point["C"], max_iter=5000, tol=1e-9).fit(x[~held], y[~held])
        right = model.predict(x[held]) == y[held]
        by_class[point["C"]] = np.mean([right[y[held] == c].mean() for c in range(3)])
        by_sample[point["C"]] = right.mean()
        assert point["holdout_mean_per_class"] == pytest.approx(100 * by_class[point["C"]], abs=1e-6)
    best = [c for c, v in by_class.items() if v == max(by_class.values())]
    assert details["chosen"] == min(best)
    weakest = task("transfer", (x, y), (x, y), sets="pets", points=9, protocol="ericsson")
    weakest.source = "pets"
    weakest.data["train"].validation = held
    assert next(iter(Transfer().evaluate(weakest))).details["chosen"] == max(best)
    assert by_class[details["chosen"]] > by_class[max(by_sample, key=lambda c: (by_sample[c], -c))]


def test_one_vs_rest_is_scikit_learns_binary_regression():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 5)).astype(np.float32)
    targets = np.where(x @ rng.standard_normal((5, 3)) + rng.standard_normal((80, 3)) > 0, 1, -1)
    targets[::7, 1] = 0
    targets[:, 2] = -1  # A class that train never shows.
    grid = [0.01, 1.0]
    for c, fit in zip(grid, OneVsRest(x, targets).fit(grid, tol=1e-9), strict=True):
        scores = fit.logits(x)
        for k in (0, 1):
            rows = targets[:, k] != 0
            theirs = LogisticRegression(C=c, tol=1e-10, max_iter=5000).fit(x[rows].astype(float), targets[rows, k])
            np.testing.assert_allclose(scores[:, k], theirs.decision_function(x), atol=2e-4)
        assert len(set(scores[:, 2])) == 1
