"""Hugging Face tables: columns and splits found by type, files of every kind, the local cache, and refusals."""

import pickle

import numpy as np
import pytest
from datahelp import encoded, write_parquet

from bench.data.opening import open_data
from bench.dataset import DecodeError
from bench.errors import BenchError

datasets = pytest.importorskip("datasets")


def table(n=6, features=None, **columns):
    rows = {"image": [{"bytes": encoded(i), "path": None} for i in range(n)], **columns}
    kinds = datasets.Features({"image": datasets.Image(), **(features or {})}) if features is not None else None
    return datasets.Dataset.from_dict(rows, features=kinds)


INT, TEXT = datasets.Value("int64"), datasets.Value("string")


def stored(folder, train, test=None):
    folder.mkdir(exist_ok=True)
    for split, rows in (("train", train), ("test", test)):
        if rows is not None:
            rows.to_parquet(str(folder / f"{split}.parquet"))
    return folder


def test_classes_come_from_the_type(tmp_path):
    write_parquet(tmp_path / "set")
    train, test = open_data(f"hf:{tmp_path / 'set'}")
    assert train.classes == ("cat", "dog", "owl")
    assert train.labels.tolist() == [i % 3 for i in range(12)]
    assert (train.split, test.split) == ("train", "test")
    assert np.asarray(train.image(4)).tolist() == np.asarray(pil(4)).tolist()


def pil(seed):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(encoded(seed)))


@pytest.mark.parametrize(
    ("values", "kind", "classes", "labels"),
    [
        ([7, 5, 5, 9, 7, 7], INT, ("5", "7", "9"), [7, 5, 5, 9, 7, 7]),
        (["owl", "cat", "owl", "cat", "owl", "cat"], TEXT, ("cat", "owl"), [1, 0, 1, 0, 1, 0]),
    ],
)
def test_numbers_and_names(tmp_path, values, kind, classes, labels):
    rows = table(6, {"label": kind}, label=values)
    train, test = open_data(f"hf:{stored(tmp_path / 'set', rows, rows)}")
    assert train.classes == test.classes == classes
    assert train.labels.tolist() == labels


def test_a_choice_of_columns(tmp_path):
    fine = datasets.ClassLabel(names=["a", "b", "c"])
    kinds = {"coarse": datasets.ClassLabel(names=["x", "y"]), "fine": fine, "mask": datasets.Image()}
    masks = [{"bytes": encoded(50 + i), "path": None} for i in range(6)]
    rows = table(6, kinds, coarse=[0, 1] * 3, fine=[0, 1, 2] * 2, mask=masks)
    path = stored(tmp_path / "set", rows, rows)
    with pytest.raises(BenchError, match=r"several label columns \(coarse, fine\).*choose with \?label=COLUMN"):
        open_data(f"hf:{path}")
    assert open_data(f"hf:{path}?label=fine").train.classes == ("a", "b", "c")
    # Of two image columns, the one called image.
    assert open_data(f"hf:{path}?label=coarse").train.image(0).tobytes() == pil(0).tobytes()
    assert open_data(f"hf:{path}?label=coarse&image=mask").train.image(0).tobytes() == pil(50).tobytes()
    renamed = stored(tmp_path / "two", rows.rename_column("image", "photo"), rows.rename_column("image", "photo"))
    with pytest.raises(BenchError, match=r"several image columns \(photo, mask\)"):
        open_data(f"hf:{renamed}?label=fine")
    with pytest.raises(BenchError, match=r"no column 'fime'; nearest: fine"):
        open_data(f"hf:{path}?label=fime")
    with pytest.raises(BenchError, match=r"unknown choice 'labels'.*nearest: label"):
        open_data(f"hf:{path}?labels=fine")


def test_validation_goes_before_test_and_can_be_chosen(tmp_path):
    write_parquet(tmp_path / "set")
    test = tmp_path / "set" / "test-00000-of-00001.parquet"
    (tmp_path / "set" / "validation-00000-of-00001.parquet").write_bytes(test.read_bytes())
    assert open_data(f"hf:{tmp_path / 'set'}").test.split == "validation"
    assert open_data(f"hf:{tmp_path / 'set'}?test=test").test.split == "test"
    with pytest.raises(BenchError, match=r"no split 'tset'; nearest: test"):
        open_data(f"hf:{tmp_path / 'set'}?test=tset")


def test_a_single_file_is_held_out_by_content(tmp_path):
    rows = table(60, {"label": INT}, label=[i % 3 for i in range(60)])
    path = stored(tmp_path / "set", rows) / "train.parquet"
    train, test = open_data(f"hf:{path}")
    assert test.split == "holdout"
    assert len(train) + len(test) == 60
    assert 3 <= len(test) <= 22
    assert not set(train.ids) & set(test.ids)
    # The order of the rows does not decide who is held out.
    order = list(range(59, -1, -1))
    again = open_data(f"hf:{stored(tmp_path / 'again', rows.select(order)) / 'train.parquet'}").test
    assert {again.image(i).tobytes() for i in range(len(again))} == {test.image(i).tobytes() for i in range(len(test))}


def test_arrow_files_and_saved_sets(tmp_path):
    rows = table(6, {"label": INT}, label=[0, 1] * 3)
    datasets.DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "saved"))
    train, test = open_data(f"hf:{tmp_path / 'saved'}")
    assert (train.split, test.split) == ("train", "validation")
    arrow = tmp_path / "arrow"
    arrow.mkdir()
    for split in ("train", "validation"):
        file = next((tmp_path / "saved" / split).glob("*.arrow"))
        (arrow / f"set-{split}-00000-of-00001.arrow").write_bytes(file.read_bytes())
    plain = open_data(f"hf:{arrow}")
    assert plain.train.fingerprint == train.fingerprint
    assert plain.test.split == "validation"
    assert len(pickle.dumps(plain.train)) < 30_000


def test_bytes_without_the_image_type(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = [encoded(i) for i in range(4)]
    for split in ("train", "test"):
        pq.write_table(pa.table({"jpg": content, "label": [0, 1, 0, 1]}), tmp_path / f"{split}.parquet")
    train = open_data(f"hf:{tmp_path}").train
    assert train.image(3).tobytes() == pil(3).tobytes()


def test_a_set_in_the_local_cache(tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    write_parquet(tmp_path / "flowers")
    # As the library leaves a set of the hub behind: <org>___<name>/<config>/<version>/<hash>.
    made = datasets.load_dataset(str(tmp_path / "flowers"), cache_dir=str(tmp_path / "made"))
    source = tmp_path / "made" / "flowers"
    assert made["train"].num_rows == 12
    source = next(path.parent for path in (tmp_path / "made").rglob("dataset_info.json"))
    target = cache / "lab___flowers" / "default" / "0.0.0" / "0123abc"
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    info = (target / "dataset_info.json").read_text()
    (target / "dataset_info.json").write_text(
        info.replace('"config_name": "default-', '"config_name": "default", "x": "')
    )
    train, test = open_data("hf:lab/flowers")
    assert (len(train), len(test)) == (12, 6)
    assert train.classes == ("cat", "dog", "owl")


def test_missing_labels_are_refused(tmp_path):
    named = datasets.ClassLabel(names=["a", "b"])
    rows, blank = table(4, {"label": named}, label=[0, 1, 0, 1]), table(4, {"label": named}, label=[-1, -1, -1, 0])
    with pytest.raises(BenchError, match="3 of 4 rows .* have no label in 'label'"):
        open_data(f"hf:{stored(tmp_path / 'set', rows, blank)}")


def test_no_label_column_is_refused(tmp_path):
    rows = table(4, {"score": datasets.Value("float32")}, score=[0.5] * 4)
    with pytest.raises(BenchError, match="no label column that can be told; its columns are image, score"):
        open_data(f"hf:{stored(tmp_path / 'set', rows, rows)}")


def test_a_damaged_image_is_named(tmp_path):
    rows = datasets.Dataset.from_dict(
        {
            "image": [
                {"bytes": encoded(0)[:70], "path": None},
                None,
                {"bytes": encoded(1), "path": None},
            ],
            "label": [0, 1, 0],
        },
        features=datasets.Features({"image": datasets.Image(), "label": INT}),
    )
    train = open_data(f"hf:{stored(tmp_path / 'set', rows, rows)}").train
    for index, reason in ((0, "truncated"), (1, "holds no image")):
        with pytest.raises(DecodeError, match=reason) as caught:
            train.image(index)
        assert caught.value.path == f"train/{index}"
    assert train.image(2).size == (8, 8)
    assert train.fingerprint.startswith("sha256:")


@pytest.mark.parametrize("content", [b"", b"PAR1 nothing of the kind"])
def test_damaged_files_are_refused(tmp_path, content):
    write_parquet(tmp_path / "set")
    file = tmp_path / "set" / "train-00000-of-00001.parquet"
    file.write_bytes(content or file.read_bytes()[:-200])
    with pytest.raises(BenchError, match="cannot be read") as caught:
        open_data(f"hf:{tmp_path / 'set'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rest", "says"),
    [("", "needs a path"), ("nobody/nothing-here", "neither a file or folder nobody/nothing-here nor a set")],
)
def test_what_is_not_there(rest, says):
    with pytest.raises(BenchError, match=says):
        open_data(f"hf:{rest}")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b")
    with pytest.raises(BenchError, match="neither Parquet nor Arrow"):
        open_data(f"hf:{tmp_path / 'x.csv'}")
