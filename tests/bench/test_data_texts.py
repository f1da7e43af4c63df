"""Sets of texts from local tables: every form gives the same samples, and what is wrong is one sentence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bench.data.opening import limited, open_data
from bench.dataset import DecodeError, Text
from bench.errors import BenchError

TRAIN = [("good film", "red", "pos"), ('a "bad" one', "blue", "neg"), ("très bon", "", "pos"), ("not, so", "x", "neg")]
TEST = [("fine", "red", "pos"), ("awful", "blue", "neg")]


def tsv(path, rows):
    path.write_text("\n".join(["\t".join(row) for row in [("text", "text2", "label"), *rows]]) + "\n", encoding="utf-8")


def csv_file(path, rows):
    import csv

    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "text2", "label"), *rows])


def objects(rows):
    return [dict(zip(("text", "text2", "label"), row, strict=True)) for row in rows]


def jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in objects(rows)), encoding="utf-8")


def parquet(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(objects(rows)), path)


WRITERS = {
    "tsv": tsv, "csv": csv_file, "jsonl": jsonl, "parquet": parquet,
    "json": lambda path, rows: path.write_text(json.dumps(objects(rows))),
}  # fmt: skip


def folder(tmp_path, suffix="tsv", train=TRAIN, test=TEST, name="set", test_name="test"):
    root = tmp_path / name
    root.mkdir(parents=True)
    WRITERS[suffix](root / f"train.{suffix}", train)
    WRITERS[suffix](root / f"{test_name}.{suffix}", test)
    return root


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_form_holds_the_same_samples(suffix, tmp_path):
    splits = open_data(f"text:{folder(tmp_path, suffix)}")
    assert [splits.train.image(i) for i in range(4)] == [Text(a, b) for a, b, _ in TRAIN]
    assert splits.train.classes == ("neg", "pos")
    assert splits.train.labels.tolist() == [1, 0, 1, 0]
    assert splits.test.labels.tolist() == [1, 0]
    plain = open_data(f"text:{folder(tmp_path, 'tsv', name='plain')}")
    assert plain.train.fingerprint == splits.train.fingerprint
    assert splits.train.modality == "text"
    assert list(splits.test.ids) == ["test/0", "test/1"]


def test_fingerprint_is_of_texts_and_labels(tmp_path):
    def of(name, rows):
        return open_data(f"text:{folder(tmp_path, train=rows, name=name)}").train.fingerprint

    base = of("a", TRAIN)
    assert of("b", TRAIN) == base
    assert of("c", TRAIN[::-1]) != base
    assert of("d", [("good film", "red", "neg"), *TRAIN[1:]]) != base
    # The same characters, cut elsewhere.
    assert of("e", [("good filmr", "ed", "pos"), *TRAIN[1:]]) != base
    assert of("f", [("good film ", "red", "pos"), *TRAIN[1:]]) != base


def test_chosen_columns_numbered_files_and_whole_labels(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path / "set" / "data"
    root.mkdir(parents=True)
    for split, count in (("train", 2), ("validation", 1)):
        for number in range(count):
            rows = [{"body": f"{split} {number} {i}", "stars": 1 + 2 * i} for i in range(3)]
            pq.write_table(pa.Table.from_pylist(rows), root / f"{split}-{number:05d}-of-{count:05d}.parquet")
    splits = open_data(f"text:{tmp_path / 'set'}?text=body&label=stars")
    assert splits.train.class_ids == (1, 3, 5)
    assert splits.train.labels.tolist() == [1, 3, 5] * 2
    assert splits.train.image(3) == Text("train 1 0")
    assert splits.test.split == "validation"
    (root / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(BenchError, match="provide the others"):
        open_data(f"text:{tmp_path / 'set'}?text=body&label=stars")


def test_class_names_of_a_hugging_face_file(tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    for split in ("train", "test"):
        rows = {"text": ["a", "b"], "label": [0, 1]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "set" / f"{split}.parquet"))
    assert open_data(f"text:{tmp_path / 'set'}").train.classes == ("no", "yes")


def test_a_part_and_a_damaged_text(tmp_path):
    rows = [{"text": "fine \ud800", "label": 0}, {"text": "good", "label": 1}]
    root = tmp_path / "set"
    root.mkdir()
    for split in ("train", "test"):
        (root / f"{split}.json").write_text(json.dumps(rows))
    train = open_data(f"text:{root}").train
    with pytest.raises(DecodeError, match="no valid Unicode"):
        train.image(0)
    part = limited(train, 1)
    assert part.modality == "text"
    assert isinstance(train.fingerprint, str)
    assert train.part("some", np.array([1])).image(0) == Text("good")


def test_a_line_ends_at_a_newline_only(tmp_path):
    rows = [("one\u2028still one\x0bstill\u0085one", "x", "pos"), ("two", "y", "neg")]
    train = open_data(f"text:{folder(tmp_path, train=rows)}").train
    assert len(train) == 2
    assert train.image(0).first == rows[0][0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text\tlabel\ngood\t1\nbad\n", "line 3 has 1 fields"),
        ("text\ttext2\tlabel\ngood\tx\tpos\nbad\ty\t\n", r"row 1 \(from 0\) has no label"),
        ("text\ttext2\tlabel\ngood\ta\t1\nbad\tb\t0\n", "numbers for labels, and the other split has names"),
        ("text\tlabel\ngood\tpos\nbad\tneg\n", "one split has pairs"),
        ("text\ttext\na\tb\n", "distinct column names"),
        ("body\tlabel\na\t1\n", r"no column for the text.*choose one with \?text=COLUMN"),
        ("text\ttext2\tlabel\n", "holds no"),
        ("", "distinct column names"),
    ],
)
def test_refused_tables(content, sentence, tmp_path):
    root = folder(tmp_path)
    (root / "train.tsv").write_text(content)
    with pytest.raises(BenchError, match=sentence):
        open_data(f"text:{root}")


def test_refused_folders(tmp_path):
    root = folder(tmp_path)
    with pytest.raises(BenchError, match="no folder"):
        open_data("text:/nowhere/at/all")
    with pytest.raises(BenchError, match="needs a folder"):
        open_data("text")
    with pytest.raises(BenchError, match="no column 'body'"):
        open_data(f"text:{root}?text=body")
    jsonl(root / "train.jsonl", TRAIN)
    with pytest.raises(BenchError, match="more than once"):
        open_data(f"text:{root}")
    (root / "train.jsonl").unlink()
    hidden = folder(tmp_path, train=[("a", "b", "0"), ("c", "d", "1")], test=[("a", "b", "-1")], name="hidden")
    with pytest.raises(BenchError, match="has no label"):
        open_data(f"text:{hidden}")
    (root / "train.tsv").unlink()
    with pytest.raises(BenchError, match="has no train table"):
        open_data(f"text:{root}")
    for name, content, sentence in (
        ("train.json", "[1, 2]", "no list of objects"),
        ("train.json", "{", "no readable JSON"),
        ("train.parquet", "PAR0", "no readable Parquet"),
    ):
        (root / name).write_text(content)
        with pytest.raises(BenchError, match=sentence):
            open_data(f"text:{root}")
        (root / name).unlink()
