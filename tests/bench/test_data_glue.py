"""GLUE's nine tasks in the layout of its own archive, with the columns each has, and as Hugging Face stores them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gluehelp import ROWS, write_archive, write_parquet

from bench.data.glue import TASKS
from bench.data.opening import limited, open_data
from bench.dataset import Text
from bench.errors import BenchError


@pytest.mark.parametrize("task", TASKS)
def test_archive_and_parquet_are_one_set(task, tmp_path):
    write_archive(tmp_path / "glue", task)
    write_parquet(tmp_path / "hf", task)
    name = "mnli-both" if task == "mnli" else task
    archive, stored = (open_data(f"glue:{name}@{tmp_path / form}") for form in ("glue", "hf"))
    rows = ROWS[task]
    assert [archive.train.image(i) for i in range(len(rows))] == [Text(first, second) for first, second, _ in rows]
    for split in ("train", "test"):
        assert getattr(archive, split).fingerprint == getattr(stored, split).fingerprint
    if task == "stsb":
        assert archive.train.targets.tolist() == [label for _, _, label in rows]
        assert archive.train.labels.shape == (len(rows), 1)
    else:
        assert archive.train.labels.tolist() == [label for _, _, label in rows]
    # The task's own folder is as good as GLUE's.
    inner = tmp_path / "glue" / TASKS[task].folder
    assert open_data(f"glue:{name}@{inner}").train.fingerprint == archive.train.fingerprint


def test_mnli_has_two_development_sets(tmp_path, monkeypatch):
    write_archive(tmp_path / "glue", "mnli")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    matched, other, both = (open_data(f"glue:{name}").test for name in ("mnli", "mnli-mm", "mnli-both"))
    assert matched.fingerprint != other.fingerprint
    assert [name.partition("/")[0] for name in both.ids] == ["matched"] * len(matched) + ["mismatched"] * len(other)
    assert both.image(len(matched)) == other.image(0)


def test_lines_of_qqp_without_fields_are_left_out_and_elsewhere_refused(tmp_path):
    write_archive(tmp_path / "glue", "qqp")
    write_archive(tmp_path / "glue", "rte")
    before = open_data(f"glue:qqp@{tmp_path / 'glue'}").train
    for folder in ("QQP", "RTE"):
        with open(tmp_path / "glue" / folder / "train.tsv", "a") as stream:
            stream.write("7\tlost\n")
    assert open_data(f"glue:qqp@{tmp_path / 'glue'}").train.fingerprint == before.fingerprint
    with pytest.raises(BenchError, match="fields"):
        open_data(f"glue:rte@{tmp_path / 'glue'}")


def test_a_quote_is_a_character(tmp_path):
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for split in ("train", "dev"):
        (folder / f"{split}.tsv").write_text('sentence\tlabel\n"so bad\t0\nit is "good"\t1\n')
    assert open_data(f"glue:sst2@{tmp_path}").train.image(0) == Text('"so bad')


def test_refusals(tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    for spec, sentence in (
        ("glue:colla", "no task 'colla'; nearest: cola"),
        ("glue", "GLUE has no task"),
        ("glue:rte", "BENCH_DATA is not set.*glue:rte@FOLDER"),
        (f"glue:rte@{tmp_path}", "is not here"),
    ):
        with pytest.raises(BenchError, match=sentence):
            open_data(spec)
    write_archive(tmp_path, "rte")
    dev = tmp_path / "RTE" / "dev.tsv"
    content = dev.read_text()
    dev.write_text(content.replace("not_entailment", "-1"))
    with pytest.raises(BenchError, match="test sets are private"):
        open_data(f"glue:rte@{tmp_path}")
    dev.unlink()
    with pytest.raises(BenchError, match="no table dev"):
        open_data(f"glue:rte@{tmp_path}")
    write_archive(tmp_path, "stsb")
    scores = tmp_path / "STS-B" / "dev.tsv"
    scores.write_text(scores.read_text().replace("3.25", "7.5"))
    with pytest.raises(BenchError, match="none of 0 to 5"):
        open_data(f"glue:stsb@{tmp_path}")


def test_a_part_keeps_its_scores(tmp_path):
    write_archive(tmp_path, "stsb")
    whole = open_data(f"glue:stsb@{tmp_path}").train
    part = limited(whole, 3)
    assert len(part) == 3
    assert set(np.asarray(part.targets)) <= set(whole.targets)
    assert json.dumps(part.fingerprint)
