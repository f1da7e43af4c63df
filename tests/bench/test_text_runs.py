"""Runs on texts: the suites of stored features read them as they read images."""

from __future__ import annotations

import random

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra [text] is not installed")

from texthelp import encoder

import bench
from bench.errors import BenchError
from bench.modality import check

THINGS = {"animal": ("cat", "dog", "bird"), "place": ("tree", "house", "river")}


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """A set of 48 + 24 sentences whose label is whether they name an animal or a place."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    draw = random.Random(0)
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, count in (("train", 48), ("test", 24)):
        lines = ["text\tlabel"]
        for row in range(count):
            label = ("animal", "place")[row % 2]
            colour, thing = draw.choice(("red", "green", "blue")), draw.choice(THINGS[label])
            end = draw.choice(("and", "not"))
            lines.append(f"the {colour} {thing} {'was good , ' * draw.randrange(3)}{end}\t{label}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return f"text:{folder}"


def test_suites_of_stored_features_read_texts(texts, tmp_path):
    student = str(encoder(tmp_path / "student", "distilbert", seed=1))
    teacher = str(encoder(tmp_path / "teacher", "bert"))
    record = bench.run(
        model=student, teacher=teacher, suites=["knn", "linear", "agreement", "similarity", "layers"], data=texts,
        workers=0,
    )  # fmt: skip
    found = {(m.suite, m.metric): m for m in record.measurements if m.headline or m.suite == "similarity"}
    assert {"knn", "linear", "agreement", "similarity", "layers"} <= {m.suite for m in record.measurements}
    top1 = found["linear", "top1"]
    # The words are in the vocabulary: even random embeddings, pooled, tell animals from places.
    assert top1.value >= 75
    assert top1.transform.kind == "text"
    assert "at most 32" in top1.transform.custom
    assert top1.feature["tokens"] == "mean"
    assert all(np.isfinite(m.value) for m in record.measurements)
    again = bench.run(model=student, suites=["linear"], data=texts, workers=0)
    assert again.measurements[0].value == top1.value


def test_a_network_against_itself(texts, tmp_path):
    model = str(encoder(tmp_path / "e"))
    record = bench.run(model=model, teacher=model, suites=["agreement", "similarity"], data=texts, workers=0)
    values = {m.metric: m.value for m in record.measurements if m.split == "test"}
    assert values["agreement"] == 100
    assert values["cka"] == pytest.approx(1)


def test_cost_and_compression_of_text_encoders(texts, tmp_path):
    student = str(encoder(tmp_path / "s", num_hidden_layers=1))
    teacher = str(encoder(tmp_path / "t", num_hidden_layers=4))
    record = bench.run(model=student, suites=["cost"], settings={"cost.size": 16, "cost.repeats": 6, "cost.batch": 2})
    found = {m.metric: m for m in record.measurements}
    assert found["parameters"].value == record.model.parameters
    assert found["gflops"].value > 0
    assert found["parameters"].settings["tokens"] == "16"
    with pytest.raises(BenchError, match="positions for 40"):
        bench.run(model=student, suites=["cost"], settings={"cost.size": 64})
    record = bench.run(model=student, teacher=teacher, suites=["compression"], data=texts, workers=0)
    found = {m.metric: m for m in record.measurements}
    assert found["parameters_ratio"].value != 1
    assert found["flops_ratio"].value != 1
    # At the most positions that each has.
    for metric in ("flops_ratio", "latency_speedup"):
        assert (found[metric].settings["tokens"], found[metric].settings["teacher_tokens"]) == ("32", "32")
        assert not [key for key in found[metric].settings if "image" in key]
    assert found["retention"].value > 0


def test_stored_features_do_not_depend_on_the_batch(texts, tmp_path, monkeypatch):
    model = str(encoder(tmp_path / "e"))
    values = []
    for batch in (3, 16):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / f"cache{batch}"))
        record = bench.run(model=model, suites=["linear"], data=texts, workers=0, batch=batch, runs=tmp_path / "runs")
        values.append(record.measurements[0].value)
    assert values[0] == values[1]


def test_networks_are_given_what_they_read(texts, tmp_path):
    model = str(encoder(tmp_path / "e"))
    with pytest.raises(BenchError, match=r"text encoder, and --data demo holds images"):
        bench.run(model=model, suites=["knn"], data="demo")
    with pytest.raises(BenchError, match=r"reads images, and --data text:.* holds texts"):
        bench.run(model="demo:trio-kd", suites=["knn"], data=texts)
    with pytest.raises(BenchError, match=r"reads images, and --data text:.* holds texts"):
        bench.run(model=model, teacher="demo:trio-kd", suites=["agreement"], data=texts)
    check([], {})
