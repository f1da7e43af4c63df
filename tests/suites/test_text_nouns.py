"""What screens call samples: texts are not images, and SQuAD's pieces are windows."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("transformers", reason="the extra [text] is not installed")

from texthelp import encoder

import bench
from bench import sweep
from bench.errors import BenchError
from bench.progress import Progress
from suites.reading_comprehension import Windows

LINES = "text\tlabel\n" + "".join(
    f"the {animal} {verb} on the {place}\t{animal}\n"
    for animal in ("cat", "dog") for verb in ("sat", "ran", "flew") for place in ("mat", "tree", "house")
)  # fmt: skip


@pytest.fixture
def texts(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{split}.tsv").write_text(LINES)
    return f"text:{tmp_path / 'set'}"


def test_a_training_on_texts_speaks_of_texts(tmp_path, texts, monkeypatch):
    monkeypatch.setattr("bench.progress.PATIENCE", 0)
    monkeypatch.setattr("bench.progress.PLAIN_EVERY", 0)
    stream = io.StringIO()
    bench.run(
        model=str(encoder(tmp_path / "e")), suites=["finetune"], data=texts, protocols={"finetune": "bert"},
        settings={"finetune.batch": 6, "finetune.epochs": 1}, workers=0, device="cpu", progress=Progress(stream),
    )  # fmt: skip
    said = stream.getvalue()
    assert "of 6 texts" in said
    assert "texts/s" in said
    assert "/18 texts" in said
    assert "image" not in said
    assert Windows.noun == "windows"


def test_a_sweep_counts_texts_and_images_apart(tmp_path, texts):
    path = tmp_path / "sweep.yaml"
    model = encoder(tmp_path / "e")
    path.write_text(f"suites: [knn]\ndata: ['{texts}']\nmodels: ['{model}']\n")
    steps = sweep.plan(sweep.read(path), tmp_path)
    assert "36 texts to forward" in sweep.cost(steps)
    assert sweep.rows(steps)[0]["texts"] == "36"
    path.write_text("suites: [knn]\ndata: [demo]\nmodels: ['demo:mobilenetv2']\n")
    both = steps + sweep.plan(sweep.read(path), tmp_path)
    assert "3,000 images and 36 texts to forward" in sweep.cost(both)
    assert [row["samples"] for row in sweep.rows(both)] == ["36", "3,000"]


def test_refusals_speak_of_texts(tmp_path, texts):
    (tmp_path / "set" / "test.tsv").write_text("text\tlabel\n")
    with pytest.raises(BenchError, match=r"no (samples|texts)|holds no"):
        bench.run(model=str(encoder(tmp_path / "e")), suites=["knn"], data=texts)
