"""Journal: what a killed run had finished, whole or not at all."""

import numpy as np

from bench.journal import FOLDER, Journal
from bench.record import Engine, Measurement


def measurement() -> Measurement:
    return Measurement(
        suite="knn", protocol="knn/dino@1", dataset="d", split="test", fingerprint="sha256:0", metric="top1",
        value=1 / 3, unit="%", higher_is_better=True, n=3, interval=(0.1, 0.9), engine=Engine(name="e", version="1"),
    )  # fmt: skip


def test_round_trip_keeps_every_bit(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    assert journal.load("knn") is None
    outcomes = {"knn-k20": {"label": np.arange(3), "score": np.array([0.1, 0.2, 1 / 3], dtype=np.float32)}}
    journal.save("knn", [measurement()], outcomes, 1.25)
    measurements, read, seconds = Journal(tmp_path, "a" * 64).load("knn")
    assert measurements == [measurement()]
    assert seconds == 1.25
    assert read["knn-k20"]["score"].dtype == np.float32
    np.testing.assert_array_equal(read["knn-k20"]["score"], outcomes["knn-k20"]["score"])
    assert Journal(tmp_path, "b" * 64).load("knn") is None


def test_a_damaged_entry_is_computed_again(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    journal.save("knn", [measurement()], {}, 0.0)
    path = journal.folder / "knn.npz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert journal.load("knn") is None
    assert not path.exists()


def test_remove_leaves_other_runs_alone(tmp_path):
    first, second = Journal(tmp_path, "a" * 64), Journal(tmp_path, "b" * 64)
    first.save("knn", [measurement()], {}, 0.0)
    second.save("knn", [measurement()], {}, 0.0)
    first.remove()
    assert second.load("knn") is not None
    second.remove()
    assert not (tmp_path / FOLDER).exists()
