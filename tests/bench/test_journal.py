"""Journal: what a killed run had finished, whole or not at all."""

import threading
import time

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


def test_a_run_keeps_its_id_until_its_record_is_written(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    assert journal.run("net", "first") == "first"
    assert Journal(tmp_path, "a" * 64).run("net", "second") == "first"
    assert journal.run("another name", "other") == "other"
    assert Journal(tmp_path, "b" * 64).run("net", "elsewhere") == "elsewhere"
    journal.remove()
    assert Journal(tmp_path, "a" * 64).run("net", "third") == "third"


def test_an_id_that_is_no_file_name_is_not_taken_over(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    journal.run("net", "first")
    (path,) = journal.folder.glob("*.run")
    path.write_text("../../elsewhere")
    assert journal.run("net", "second") == "second"


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    journal.run("net", "first")
    journal.withdraw("net")
    assert not (tmp_path / FOLDER).exists()
    journal.run("net", "second")
    journal.save("knn", [measurement()], {}, 0.0)
    journal.withdraw("net")
    assert journal.run("net", "third") == "second"


def test_one_process_at_a_time_ends_a_run(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    journal.run("net", "first")
    order = []

    def end(number: int) -> None:
        with Journal(tmp_path, "a" * 64).ending():
            order.append(("in", number))
            time.sleep(0.1)
            order.append(("out", number))

    threads = [threading.Thread(target=end, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [word for word, _ in order] == ["in", "out"] * 3


def test_what_a_recorded_run_left_is_removed_unless_another_run_is_at_work(tmp_path):
    journal = Journal(tmp_path, "a" * 64)
    journal.run("net", "first")
    journal.run("another name", "other")
    journal.settle("first")
    assert journal.folder.exists()
    journal.settle("first")
    (tmp_path / FOLDER).rename(tmp_path / "gone")
    journal.run("net", "first")
    journal.save("knn", [measurement()], {}, 0.0)
    journal.settle("first")
    assert not (tmp_path / FOLDER).exists()
