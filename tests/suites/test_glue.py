"""GLUE: metrics against scikit-learn and SciPy, what is averaged, a whole run, and texts in the suite finetune."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra [text] is not installed")

from gluehelp import write_archive
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from texthelp import encoder

import bench
from bench.errors import BenchError
from bench.progress import Progress
from bench.protocol import get
from suites import glue, glue_metrics
from suites.glue import AVERAGES, GLUE, ROWS

QUICK = {"glue.epochs": 2, "glue.batch": 4, "glue.lr": 0.001}


def test_counts_are_scikit_learns_metrics():
    rng = np.random.default_rng(0)
    for positive in (0.5, 0.05, 1.0, 0.0):
        truth = (rng.random(200) < positive).astype(int)
        for share in (0.3, 0.0, 1.0):
            answer = np.where(rng.random(200) < share, truth, 1 - truth)
            found = glue_metrics.binary(("top1", "f1", "matthews"), truth, answer, 0)
            assert found["top1"].value == pytest.approx(accuracy_score(truth, answer))
            assert found["f1"].value == pytest.approx(f1_score(truth, answer, zero_division=0))
            assert found["matthews"].value == pytest.approx(matthews_corrcoef(truth, answer))
    always = np.ones(9, dtype=int)
    assert glue_metrics.binary(("matthews",), np.arange(9) % 2, always, 0)["matthews"].value == 0


def test_known_answer():
    # 6 true positives, 1 false positive, 2 false negatives, 3 true negatives.
    counts = np.array([6, 1, 2, 3])
    assert glue_metrics.accuracy(counts) == pytest.approx(9 / 12)
    assert glue_metrics.f1(counts) == pytest.approx(12 / 15)
    assert glue_metrics.matthews(counts) == pytest.approx((18 - 2) / np.sqrt(7 * 8 * 4 * 5))


def test_correlations_are_scipys():
    rng = np.random.default_rng(1)
    truth = np.round(5 * rng.random(60) * 4) / 4  # ties
    answer = truth + rng.normal(size=60)
    found = glue_metrics.correlations(truth, answer, 0)
    assert found["pearson"].value == pytest.approx(stats.pearsonr(truth, answer).statistic)
    assert found["spearman"].value == pytest.approx(stats.spearmanr(truth, answer).statistic)
    low, high = found["pearson"].interval()
    exact = stats.pearsonr(truth, answer).confidence_interval()
    assert (low, high) == pytest.approx((exact.low, exact.high), abs=0.08)
    assert low < found["pearson"].value < high
    with pytest.raises(BenchError, match="all predictions are 2"):
        glue_metrics.correlations(truth, np.full(60, 2.0), 0)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    for task in ROWS:
        write_archive(tmp_path / "data" / "glue", task)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "data" / "glue"


def test_the_nine_tasks_and_their_averages(archive, tmp_path, monkeypatch):
    sizes = {"mnli": (12, 13)}
    small = {name: row._replace(train=12, dev=sizes.get(name, (12, 8))[1]) for name, row in ROWS.items()}
    monkeypatch.setattr(glue, "ROWS", small)
    record = bench.run(
        model=str(encoder(tmp_path / "e")), suites=["glue"], protocols={"glue": "bert-2e-5"}, workers=0,
        settings=QUICK, runs=tmp_path / "runs",
    )  # fmt: skip
    found = {(m.dataset, m.metric, m.settings.get("set")): m for m in record.measurements}
    assert {(d, m) for d, m, _ in found} == {
        ("glue-cola", "matthews"), ("glue-sst2", "top1"), ("glue-mrpc", "f1"), ("glue-mrpc", "top1"),
        ("glue-mrpc", "score"), ("glue-stsb", "pearson"), ("glue-stsb", "spearman"), ("glue-stsb", "score"),
        ("glue-qqp", "f1"), ("glue-qqp", "top1"), ("glue-qqp", "score"), ("glue-mnli-both", "top1"),
        ("glue-mnli-both", "score"), ("glue-qnli", "top1"), ("glue-rte", "top1"), ("glue-wnli", "top1"),
        ("glue", "avg"), ("glue", "avg_wnli"),
    }  # fmt: skip
    heads = {m.dataset: m.value for m in record.measurements if m.headline}
    mean = [value for name, value in heads.items() if name not in ("glue", "glue-wnli")]
    assert len(mean) == 8
    assert found["glue", "avg", None].value == pytest.approx(np.mean(mean))
    assert found["glue", "avg_wnli", None].value == pytest.approx(np.mean([*mean, heads["glue-wnli"]]))
    assert found["glue", "avg", None].details["average"] == AVERAGES["avg"]
    pair = [found["glue-mnli-both", "top1", name] for name in ("matched", "mismatched")]
    assert [m.n for m in pair] == [6, 7]
    assert heads["glue-mnli-both"] == pytest.approx(np.mean([m.value for m in pair]))
    assert heads["glue-mrpc"] == pytest.approx(
        (found["glue-mrpc", "f1", None].value + found["glue-mrpc", "top1", None].value) / 2
    )
    table = np.load(tmp_path / "runs" / found["glue-stsb", "pearson", None].outcomes)
    assert found["glue-stsb", "pearson", None].value == pytest.approx(
        100 * stats.pearsonr(table["target"], table["prediction"]).statistic
    )
    assert found["glue-rte", "top1", None].selection == "last"
    assert "at most 40" in found["glue-rte", "top1", None].transform.custom


@pytest.mark.parametrize(("protocol", "key", "selection"), [("bert", "dev_score", "best_on_test"),
                                                           ("bert-holdout", "holdout_score", "holdout")])  # fmt: skip
def test_a_grid_is_chosen_where_the_card_says(protocol, key, selection, archive, tmp_path):
    settings = QUICK | {"glue.lr": [1e-6, 0.003], "glue.tasks": ["rte", "stsb"], "glue.holdout": 0.3}
    model = str(encoder(tmp_path / "e"))
    record = bench.run(model=model, suites=["glue"], protocols={"glue": protocol}, settings=settings, workers=0)
    for m in record.measurements:
        assert m.selection == selection
        tried = m.details["tried"]
        assert [point["lr"] for point in tried] == [1e-6, 0.003]
        assert m.details["lr"] == max(tried, key=lambda point: point[key])["lr"]
        assert (m.interval is None) == (selection == "best_on_test")
    assert not any(m.metric == "avg" for m in record.measurements)
    if selection == "best_on_test":
        head = next(m for m in record.measurements if m.headline and m.dataset == "glue-rte")
        assert head.value == pytest.approx(max(point[key] for point in head.details["tried"]))


def test_no_average_over_parts(archive, tmp_path):
    heads = []
    suite, card = GLUE(), get("glue", "bert-2e-5")
    assert list(suite.summary(card, heads, {})) == []
    assert suite.data_sets(card)[5] == "glue:mnli-both"


def test_finetune_on_texts_learns_the_order_of_words(tmp_path, monkeypatch):
    """Word order, which a mean of random features hardly tells; the original network is left as it was."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "order"
    folder.mkdir()
    words = ("cat", "dog", "bird", "house", "tree", "river")
    for split, shift in (("train", 1), ("test", 2)):
        rows = [(a, b) for i, a in enumerate(words) for j, b in enumerate(words) if i != j and (i + j) % 3 != shift % 3]
        lines = [f"the {a} sat on {b}\t0\n{b} on sat the {a}\t1" for a, b in rows]
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n")
    backbone = bench.load(str(encoder(tmp_path / "e")))
    digest = backbone.card.weight_digest
    settings = {"finetune.epochs": 8, "finetune.batch": 8, "finetune.lr": 0.003, "finetune.dropout": 0.0}
    record = bench.run(
        model=backbone, suites=["finetune"], protocols={"finetune": "bert"}, settings=settings, workers=0,
        data=f"text:{folder}", progress=Progress(quiet=True),
    )  # fmt: skip
    (top1,) = [m for m in record.measurements if m.metric == "top1"]
    assert top1.value >= 90
    assert top1.feature["tokens"] == "pooler"
    from bench.backbone import weight_digest

    assert weight_digest(dict(backbone.network.state_dict())) == digest


def test_refusals(archive, tmp_path):
    model = str(encoder(tmp_path / "e"))
    with pytest.raises(BenchError, match="suite 'glue' fine-tunes a text encoder"):
        bench.run(model="demo:trio-kd", suites=["glue"])
    with pytest.raises(BenchError, match=r"crops or mixes images.*--protocol finetune=bert"):
        bench.run(model=model, suites=["finetune"], data="glue:rte")
    with pytest.raises(BenchError, match="fine-tunes a text encoder"):
        bench.run(model="demo:trio-kd", suites=["finetune"], protocols={"finetune": "bert"}, data="demo")
    with pytest.raises(BenchError, match=r"gives its texts scores.*glue.tasks=stsb"):
        bench.run(model=model, suites=["finetune"], protocols={"finetune": "bert"}, data="glue:stsb")
    with pytest.raises(BenchError, match="brings data sets of its own"):
        bench.run(model=model, suites=["glue"], data="glue:rte")
    with pytest.raises(BenchError, match=r"glue.tasks is cola, .* or wnli, not 'snli'"):
        bench.run(model=model, suites=["glue"], settings={"glue.tasks": ["snli"]})
    with pytest.raises(BenchError, match="no present label|several labels|one class"):
        bench.run(model=model, suites=["knn"], data="glue:stsb", workers=0)
