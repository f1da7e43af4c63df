"""Hugging Face folders that would give a wrong set in silence: shards missing, configurations mixed, files changed."""

import os

import pytest
from datahelp import encoded, put, write_parquet

from bench.data.hffiles import by_split
from bench.data.opening import open_data
from bench.errors import BenchError

datasets = pytest.importorskip("datasets")

KINDS = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}


def rows(images):
    return datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 3}, features=datasets.Features(KINDS))


def arrow(path, images):
    import pyarrow as pa

    table = rows(images).data.table
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)


def held(base):
    return [{"bytes": encoded(base + i), "path": None} for i in range(6)]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_split_that_lacks_files_is_refused(tmp_path, suffix):
    for name, base in (("train-00000-of-00003", 0), ("train-00002-of-00003", 10), ("test-00000-of-00001", 20)):
        path = tmp_path / "set" / f"{name}.{suffix}"
        if suffix == "arrow":
            arrow(path, held(base))
        else:
            path.parent.mkdir(exist_ok=True)
            rows(held(base)).to_parquet(str(path))
    with pytest.raises(BenchError, match=r"2 of the 3 files .*train-\*-of-00003 are here"):
        open_data(f"hf:{tmp_path / 'set'}")
    # A saved set names its digest too; a whole one passes.
    for path in (tmp_path / "set").glob("train-*"):
        number = {"00000": "00000", "00002": "00001"}[path.stem.split("-")[1]]
        path.rename(path.with_name(f"train-{number}-of-00002-0123456789abcdef.{suffix}"))
    assert len(open_data(f"hf:{tmp_path / 'set'}").train) == 12


def test_arrow_files_of_other_splits_stay_out(tmp_path):
    for base, split in enumerate(("train", "extra", "test")):
        arrow(tmp_path / f"{split}.arrow", held(10 * base))
    train, test = open_data(f"hf:{tmp_path}")
    assert (len(train), len(test), test.split) == (6, 6, "test")
    assert open_data(f"hf:{tmp_path}?train=extra").train.image(0).tobytes() != train.image(0).tobytes()


def test_the_split_is_a_word_of_the_name(tmp_path):
    names = ["attestation.arrow", "set-validation-00000-of-00001.arrow", "trainer.arrow", "my_train.arrow"]
    found = by_split(tmp_path / name for name in names)
    assert set(found) == {"attestation", "validation", "trainer", "train"}
    assert [path.name for path in found["train"]] == ["my_train.arrow"]


@pytest.mark.parametrize("nested", [False, True])
def test_configurations_are_not_mixed(tmp_path, nested):
    for config, base in (("fine", 0), ("coarse", 100)):
        for split in ("train", "test"):
            name = f"{split}/0000.parquet" if nested else f"{split}-00000-of-00001.parquet"
            path = tmp_path / "set" / config / name
            path.parent.mkdir(parents=True, exist_ok=True)
            rows(held(base)).to_parquet(str(path))
    with pytest.raises(BenchError, match=r"lies in several folders \(coarse, fine\).*\?config=FOLDER"):
        open_data(f"hf:{tmp_path / 'set'}")
    train, test = open_data(f"hf:{tmp_path / 'set'}?config=coarse")
    assert (len(train), len(test)) == (6, 6)
    assert train.fingerprint != open_data(f"hf:{tmp_path / 'set'}?config=fine").train.fingerprint
    with pytest.raises(BenchError, match="no configuration 'corse'"):
        open_data(f"hf:{tmp_path / 'set'}?config=corse")


def test_a_readme_that_lists_configurations_decides(tmp_path):
    for config, base in (("fine", 0), ("coarse", 100)):
        for split in ("train", "test"):
            path = tmp_path / "set" / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows(held(base)).to_parquet(str(path))
    listed = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {folder}/train.parquet\n"
        f"  - split: test\n    path: {folder}/test.parquet\n"
        for name, folder in (("one", "fine"), ("two", "coarse"))
    )
    put(tmp_path / "set" / "README.md", f"---\nconfigs:\n{listed}---\n# A set\n".encode())
    assert len(open_data(f"hf:{tmp_path / 'set'}?config=two").train) == 6
    with pytest.raises(BenchError, match=r"[Cc]onfig name is missing"):
        open_data(f"hf:{tmp_path / 'set'}")


def test_files_that_rows_point_at_belong_to_the_fingerprint(tmp_path):
    paths = [str(put(tmp_path / "images" / f"{i}.png", encoded(i))) for i in range(6)]
    for split in ("train", "test"):
        arrow(tmp_path / "set" / f"{split}.arrow", paths)
    before = open_data(f"hf:{tmp_path / 'set'}").train
    held_inside = tmp_path / "inside"
    for split in ("train", "test"):
        arrow(held_inside / f"{split}.arrow", held(0))
    assert before.fingerprint == open_data(f"hf:{held_inside}").train.fingerprint
    put(tmp_path / "images" / "3.png", encoded(77))
    assert open_data(f"hf:{tmp_path / 'set'}").train.fingerprint != before.fingerprint


def test_a_set_that_the_hub_client_fetched(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "prepared"))
    write_parquet(tmp_path / "files")
    store = tmp_path / "hub" / "datasets--lab--petals"
    put(store / "refs" / "main", b"0123abc")
    for number, path in enumerate(sorted((tmp_path / "files").iterdir())):
        # As the client keeps them: content once, under a digest, and links with the names.
        blob = put(store / "blobs" / f"{number:064x}", path.read_bytes())
        link = store / "snapshots" / "0123abc" / "data" / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    train, test = open_data("hf:lab/petals")
    assert (len(train), len(test)) == (12, 6)
    assert train.fingerprint == open_data(f"hf:{tmp_path / 'files'}").train.fingerprint
    assert train.name == "petals"
