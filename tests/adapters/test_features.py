"""``features:DIR``: accepted forms, identity, and every refusal."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from adapters.features import load
from bench.errors import BenchError
from bench.ledger import Ledger

X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
Y = np.array([5, 5, 9, 9, 30, 30])


def _save(folder: Path, *, train: dict[str, Any] | None = None, test: dict[str, Any] | None = None) -> Path:
    for name, change in (("train", train), ("test", test)):
        arrays = {"x": X, "y": Y, **(change or {})}
        np.savez(folder / f"{name}.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("labels", ["int8", "uint8", "int32", "int64", "uint64", ">i4"])
def test_reads_both_splits_as_float32(tmp_path: Path, dtype: str, labels: str) -> None:
    stored = load(str(_save(tmp_path, train={"x": X.astype(dtype), "y": Y.astype(labels)})))
    assert stored.train.array("pooled").dtype == np.float32
    np.testing.assert_allclose(stored.train.array("pooled"), X, rtol=1e-3)
    assert stored.train.labels.dtype == np.int64
    assert stored.train.labels.tolist() == Y.tolist()
    assert stored.train.classes == {5: "5", 9: "9", 30: "30"}
    assert (stored.train.dataset, stored.train.split, stored.test.split) == ("features", "train", "test")
    assert not stored.train.array("pooled").flags.writeable


def test_card(tmp_path: Path) -> None:
    card = load(str(_save(tmp_path, train={"logits": X[:, :3]}, test={"logits": X[:, :3]}))).card
    assert (card.family, card.architecture, card.transform, card.dims) == (
        "features",
        "features",
        None,
        {"pooled": 4, "logits": 3},
    )
    assert card.spec == f"features:{tmp_path}"
    assert card.name == tmp_path.name


def test_fingerprint_is_of_labels_alone_and_digest_of_features(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
    logits = {"logits": X[:, :2]}
    a = load(str(_save(folders[0])))
    b = load(str(_save(folders[1], test={"x": X + 1})))
    c = load(str(_save(folders[2], test={"y": Y[::-1].copy()})))
    d = load(str(_save(folders[3], train=logits, test=logits)))
    assert a.test.fingerprint == b.test.fingerprint == d.test.fingerprint != c.test.fingerprint
    assert len({stored.card.weight_digest for stored in (a, b, d)}) == 3
    assert a.card.weight_digest == c.card.weight_digest
    # Rows count too: the same labels and one more are other samples.
    assert load(str(_save(folders[0], test={"x": X[:5], "y": Y[:5]}))).test.fingerprint != a.test.fingerprint


def test_ids_and_unknown_arrays(tmp_path: Path) -> None:
    names = np.array([f"img{i}" for i in range(6)])
    stored = load(str(_save(tmp_path, train={"ids": names, "extra": X})))
    assert list(stored.train.ids) == names.tolist()
    assert next(iter(stored.test.ids)) == "test/0"
    assert stored.card.notes == ["train.npz: not read: extra"]


def test_samples_that_carry_several_labels(tmp_path: Path) -> None:
    several = np.array([[1, -1, 0], [-1, -1, 1], [1, 1, -1], [0, 1, -1], [-1, -1, -1], [1, -1, 1]])
    stored = load(str(_save(tmp_path, train={"x": X, "y": several}, test={"x": X, "y": several[::-1]})))
    np.testing.assert_array_equal(stored.train.labels, several)
    plain = load(str(_save(tmp_path, train={"x": X, "y": abs(several)}, test={"x": X, "y": abs(several)})))
    np.testing.assert_array_equal(plain.train.labels, 2 * abs(several) - 1)
    stored = load(str(_save(tmp_path, train={"x": X, "y": several}, test={"x": X, "y": several[::-1]})))
    assert stored.train.classes == {0: "0", 1: "1", 2: "2"}
    assert len(stored.train) == 6
    assert stored.train.fingerprint != stored.test.fingerprint
    settings = {"knn.k": 3, "linear.C": 1}
    record = bench.run(f"features:{tmp_path}", ["knn", "linear"], settings=settings, runs=tmp_path / "r")
    found = {(m.suite, m.metric) for m in record.measurements}
    assert found == {("knn", "map"), ("knn", "map11"), ("linear", "map"), ("linear", "map11")}
    assert Ledger(tmp_path / "r").check() == []
    with pytest.raises(BenchError, match="expects one: run knn or linear"):
        bench.run(f"features:{tmp_path}", ["ridge"])
    for wrong, words in ((several + 1, "values other than -1, 0 and 1"), (several[:, :2], "both splits need the same")):
        with pytest.raises(BenchError, match=words):
            load(str(_save(tmp_path, train={"x": X, "y": several}, test={"x": X, "y": wrong})))


def test_compressed_and_fortran_order(tmp_path: Path) -> None:
    _save(tmp_path)
    np.savez_compressed(tmp_path / "train.npz", x=np.asfortranarray(X), y=Y)
    np.testing.assert_array_equal(load(str(tmp_path)).train.array("pooled"), X)


_NAN = X.copy()
_NAN[2, 1], _NAN[4, 0] = np.nan, np.inf


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": None}, "no array 'x' (it holds y)"),
        ({"y": None}, "no array 'y' (it holds x)"),
        ({"x": X[:, 0]}, "shape [6], not [N, D]"),
        ({"x": X.reshape(6, 2, 2)}, "flatten or pool"),
        ({"x": X[:5]}, "5 rows of x but 6 labels"),
        ({"x": X.astype(np.int64)}, "is int64, not float"),
        ({"x": X.astype(np.complex64)}, "is complex64, not float"),
        ({"x": X[:, :0]}, "not [N, D]"),
        ({"y": Y.astype(float)}, "y.astype('int64')"),
        ({"y": Y.astype(bool)}, "not integer"),
        ({"y": np.eye(6, dtype=int)}, "one class number per sample"),
        ({"x": X[:0], "y": Y[:0]}, "no samples"),
        ({"x": _NAN}, "2 of 6 samples, the first is sample 2"),
        ({"x": np.where(np.arange(24).reshape(6, 4) == 7, 1e300, 0.0)}, "1 of 6 samples, the first is sample 1"),
        ({"x": np.array([[None] * 4] * 6)}, "never unpickled"),
        ({"x": X[:, :3]}, "widths 4 and 3"),
        ({"logits": X}, "give both or none"),
        ({"ids": np.array(["a"] * 6)}, "not unique"),
        ({"ids": np.array(["a"])}, "one each"),
    ],
)
def test_refusals(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=re.escape(words)):
        load(str(_save(tmp_path, test=change)))


def test_refuses_what_is_no_folder_or_no_archive(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        load(str(tmp_path / "nothing"))
    with pytest.raises(BenchError, match="the folder holds nothing"):
        load(str(tmp_path))
    (tmp_path / "train.npz").write_text("<html>")
    with pytest.raises(BenchError, match="no readable"):
        load(str(tmp_path))
    with pytest.raises(BenchError, match="not a folder"):
        load(str(tmp_path / "train.npz"))
    with pytest.raises(BenchError, match="--arch"):
        load(str(tmp_path), arch="resnet50")


def test_every_damaged_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    _save(tmp_path)
    whole = (tmp_path / "train.npz").read_bytes()
    rng = np.random.default_rng(1)
    for position in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= int(rng.integers(1, 256))
        (tmp_path / "train.npz").write_bytes(bytes(damaged))
        try:
            stored = load(str(tmp_path))
        except BenchError:
            continue
        np.testing.assert_array_equal(stored.train.array("pooled"), X)
        assert stored.train.labels.tolist() == Y.tolist()


def test_a_bomb_is_refused_before_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path)
    with zipfile.ZipFile(tmp_path / "train.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as f:
        for _ in range(64):
            f.write(bytes(1 << 20))
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("m", (), {"available": 1 << 26})())
    with pytest.raises(BenchError, match="more than fits"):
        load(str(tmp_path))
