"""Figures: what they show is what the record says, they are the same every time, and what the data do not allow."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bench
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.record import Record
from suites import embedding_map, figures
from suites.fidelity import confusion

N, CLASSES = 60, 4


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("pair")
    y = np.arange(N) % CLASSES
    for name, noise in (("student", 1.5), ("teacher", 0.8)):
        rng = np.random.default_rng(len(name))
        (folder / name).mkdir()
        for split in ("train", "test"):
            logits = 2 * np.eye(CLASSES)[y] + noise * rng.standard_normal((N, CLASSES))
            np.savez(folder / name / f"{split}.npz", x=logits.astype(np.float32), y=y, logits=logits.astype(np.float32))
    return f"features:{folder / 'student'}", f"features:{folder / 'teacher'}"


def run(pair: tuple[str, str], runs: Path | None, **settings: Any) -> Record:
    given = {
        "agreement.splits": "test", "agreement.replicates": 100, "logits.replicates": 100, "logits.points": 20,
        **settings,
    }  # fmt: skip
    return bench.run(pair[0], ["agreement", "logits"], teacher=pair[1], settings=given, runs=runs)


def drawings(record: Record) -> set[str]:
    return {path.rpartition("/")[2] for path in record.artifacts if not path.endswith(".npz")}


def test_every_figure_lies_beside_the_record_and_can_be_read(pair: tuple[str, str], tmp_path: Path) -> None:
    record = run(pair, tmp_path)
    stems = {
        "agreement-reliability-test", "agreement-confusion-test", "logits-class_logits-test",
        "logits-logit_correlation-test", "logits-map-test",
    }  # fmt: skip
    assert drawings(record) == {f"{stem}.{suffix}" for stem in stems for suffix in ("svg", "png")}
    ledger = Ledger(tmp_path)
    assert ledger.check() == []
    for path in record.artifacts:
        if path.endswith(".png"):
            with Image.open(io.BytesIO(ledger.file(record, path))) as image:
                image.load()
                assert min(image.size) > 300
        elif path.endswith(".svg"):
            text = ledger.file(record, path).decode()
            assert ElementTree.fromstring(text).tag.endswith("svg")
            assert "NaN" not in text
    # They name how the record is shown, not how it was computed: no variant.
    assert {m.protocol for m in record.measurements} == {
        "agreement/stanton@1+replicates=100", "logits/dcd@1+replicates=100"
    }  # fmt: skip


def test_the_same_every_time(pair: tuple[str, str], tmp_path: Path) -> None:
    first, second = (run(pair, tmp_path / name, **{"logits.figures": "svg"}) for name in ("a", "b"))
    plain = [{path.rpartition("/")[2]: digest for path, digest in r.artifacts.items()} for r in (first, second)]
    assert plain[0] == plain[1]


def test_none_where_none_is_asked_for_or_no_record_is_written(pair: tuple[str, str], tmp_path: Path) -> None:
    assert run(pair, None).artifacts == {}
    only = run(pair, tmp_path, **{"agreement.figures": "none", "logits.figures": "png", "logits.embedding": "none"})
    assert drawings(only) == {"logits-class_logits-test.png", "logits-logit_correlation-test.png"}
    with pytest.raises(BenchError, match="option agreement.figures is svg, png or none, not 'pdf'"):
        run(pair, None, **{"agreement.figures": "pdf"})


def test_reliability_shows_the_calibration_error_of_the_record() -> None:
    from suites.fidelity import ece

    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 200)
    target = rng.integers(0, 3, 200)
    confidence, correct = p.max(1), (p.argmax(1) == target).astype(float)
    spec = figures.reliability("t", {"A": (confidence, correct)}, 10)
    (panel,) = spec["hconcat"]
    rows = panel["data"]["values"]
    expected = float(ece(np.log(p), target, 10).ece)
    assert sum(r["share"] * abs(r["accuracy"] - r["confidence"]) for r in rows) == pytest.approx(expected)
    assert panel["title"] == f"A: ECE {expected:.3f}"
    assert sum(r["share"] for r in rows) == pytest.approx(1)


def test_confusion_by_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix

    rng = np.random.default_rng(0)
    target, prediction = rng.integers(0, 3, 50), rng.integers(0, 4, 50)
    mine = confusion(target, prediction, 4)
    np.testing.assert_allclose(mine[:3], confusion_matrix(target, prediction, labels=range(4), normalize="true")[:3])
    assert np.isnan(mine[3]).all(), "a class without samples has no row"


def test_matrices_keep_the_classes_that_differ_most() -> None:
    difference = np.zeros((130, 130))
    difference[7], difference[129] = 2.0, 3.0
    spec = figures.matrices("t", {"D": difference}, [f"c{i}" for i in range(130)], ("rows", "columns"))
    values = spec["hconcat"][0]["data"]["values"]
    assert len(values) == 100**2
    assert max(v["v"] for v in values) == 3.0
    assert "100 of 130" in spec["title"]["text"]
    assert figures.drawn(spec, "svg").startswith(b"<svg")
    # Names from a data set are text, whatever they hold.
    ended = figures.matrices("t", {"D": 4 * np.eye(2), "E": np.eye(2)}, ["a", "b"], ("r", "c"), ends={"D": 3.0})
    scales = [part["encoding"]["color"]["scale"] for part in ended["hconcat"]]
    assert [(scale["domain"], scale["clamp"]) for scale in scales] == [([0, 3.0], True), ([0, 1.0], True)]
    odd = figures.matrices("t", {"D": np.eye(2)}, ['"] + alert("', "<script>"], ("r", "c"))
    text = figures.drawn(odd, "svg").decode()
    assert "<script>" not in text
    assert "&lt;script" in text


def test_map_holds_both_networks_apart_or_together() -> None:
    rng = np.random.default_rng(0)
    target = np.arange(60) % 3
    logits = 6 * np.eye(3)[target] + rng.standard_normal((60, 3))
    given: dict[str, Any] = {"method": "tsne", "samples": 40, "perplexity": 30.0, "seed": 0}
    found = embedding_map.plane(logits, logits, target, **given)
    assert found.teacher.shape == found.student.shape == (40, 2)
    # Identical networks lie on each other, seen against the spread of the map.
    spread = np.linalg.norm(found.teacher - found.teacher.mean(0), axis=1).mean()
    assert np.linalg.norm(found.teacher - found.student, axis=1).mean() < 0.1 * spread
    # A class' samples lie together.
    centres = np.array([found.teacher[found.target == c].mean(0) for c in range(3)])
    nearest = np.linalg.norm(found.teacher[:, None] - centres, axis=2).argmin(1)
    assert (nearest == found.target).mean() > 0.9
    with pytest.raises(BenchError, match="a map of 4 samples"):
        embedding_map.plane(logits[:4], logits[:4], target[:4], **given)
    with pytest.raises(BenchError, match="nothing to spread out"):
        embedding_map.plane(np.ones((9, 3)), np.ones((9, 3)), np.zeros(9, dtype=int), **given)


def test_umap_where_it_is_installed(monkeypatch: pytest.MonkeyPatch, pair: tuple[str, str]) -> None:
    monkeypatch.setattr(embedding_map, "find_spec", lambda name: None)
    with pytest.raises(BenchError, match="needs umap-learn: install"):
        run(pair, None, **{"logits.embedding": "umap"})


@pytest.mark.slow  # numba compiles for half a minute
def test_umap_itself() -> None:
    pytest.importorskip("umap")
    target = np.arange(60) % 3
    logits = 6 * np.eye(3)[target] + np.random.default_rng(0).standard_normal((60, 3))
    found = embedding_map.plane(logits, logits, target, method="umap", samples=40, perplexity=15.0, seed=0)
    assert np.isfinite(found.teacher).all()
    assert found.student.shape == (40, 2)
