"""The ledger: whole or not at all, never edited, and every fault one sentence."""

from __future__ import annotations

import json
import math
import multiprocessing
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bench.card import Card
from bench.errors import BenchError
from bench.ledger import ARTIFACTS, LARGEST_RECORD, Ledger, artifact, read, run_id
from bench.record import Engine, Measurement, Record, now


def sample(run: str, value: float = 76.1, outcomes: str | None = None) -> Record:
    card = Card(
        name="net", spec="demo:net", architecture="resnet50", family="cnn", dims={"pooled": 4}, feature="avg",
        weight_digest="sha256:00",
    )  # fmt: skip
    measurement = Measurement(
        suite="knn", protocol="knn/dino@1", dataset="demo", split="test", fingerprint="sha256:11", metric="top1",
        value=value, unit="%", higher_is_better=True, n=1000, interval=(value - 1, value + 1), outcomes=outcomes,
        interval_method="wilson", engine=Engine(name="faiss", version="1"), settings={"k": 20}, headline=True,
    )  # fmt: skip
    return Record(run=run, name="net", seed=0, created=now(), model=card, measurements=[measurement])


def table() -> dict[str, np.ndarray]:
    return {"label": np.arange(5), "prediction": np.arange(5)[::-1].copy(), "score": np.linspace(0, 1, 5)}


def add(folder: Path, run: str = "r1", value: float = 76.1) -> Path:
    return Ledger(folder).add(sample(run, value, artifact(run, "knn-k20")), {"knn-k20": table()})


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    value = math.nextafter(76.1, 77)
    path = add(tmp_path, value=value)
    assert path == tmp_path / "r1.json"
    [record] = Ledger(tmp_path).records()
    assert record.measurements[0].value == value
    assert record.measurements[0].interval == (value - 1, value + 1)
    assert record.to_json() == path.read_text()
    arrays = Ledger(tmp_path).outcomes(record, record.measurements[0].outcomes or "")
    for name, array in table().items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert Ledger(tmp_path).check() == []


@pytest.mark.parametrize(
    ("wrong", "first"),
    [
        (np.array([0, 1, np.nan, 3, np.nan]), "first 2"),
        (np.array([[0, 1], [np.inf, np.nan]], dtype=np.float16), "first 1, 0"),
        (np.array(-np.inf), "first 0"),
    ],
)
def test_outcomes_that_are_not_finite_are_refused(tmp_path: Path, wrong: np.ndarray, first: str) -> None:
    bad = {**table(), "score": wrong}
    with pytest.raises(BenchError, match=rf"NaN or Inf at \d of {wrong.size} places in 'score' \({first}\)"):
        Ledger(tmp_path).add(sample("r1", outcomes=artifact("r1", "t")), {"t": bad})
    assert not list(tmp_path.rglob("*.*"))


def test_equal_outcomes_are_equal_bytes(tmp_path: Path) -> None:
    first, second = (add(tmp_path / name) for name in "ab")
    assert read(first).artifacts == read(second).artifacts
    assert len(read(first).artifacts["artifacts/r1/knn-k20.npz"]) == 64


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    before = add(tmp_path).read_bytes()
    with pytest.raises(BenchError, match="never edited"):
        add(tmp_path, value=12.0)
    assert (tmp_path / "r1.json").read_bytes() == before
    other = {"knn-k20": {"label": np.zeros(3)}}
    with pytest.raises(BenchError, match="other outcomes"):
        Ledger(tmp_path).add(sample("r1", outcomes=artifact("r1", "knn-k20")), other)


def test_artifacts_come_before_the_record(tmp_path: Path) -> None:
    """What a kill between the two leaves is not seen, and the same run can still be written."""
    whole = add(tmp_path / "whole")
    ledger = Ledger(tmp_path / "killed")
    left_over = ledger.folder / ARTIFACTS / "r1" / "knn-k20.npz"
    left_over.parent.mkdir(parents=True)
    left_over.write_bytes((tmp_path / "whole" / ARTIFACTS / "r1" / "knn-k20.npz").read_bytes())
    assert list(ledger.records()) == []
    assert read(add(ledger.folder)).artifacts == read(whole).artifacts


def test_named_outcomes_must_be_handed_over(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="not handed over"):
        Ledger(tmp_path).add(sample("r1", outcomes=artifact("r1", "knn-k20")))
    assert not list(tmp_path.iterdir())


def test_python_objects_are_not_outcomes(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="plain arrays"):
        Ledger(tmp_path).add(sample("r1"), {"t": {"a": np.array([object()])}})


def test_unfinished_and_hidden_files_are_no_records(tmp_path: Path) -> None:
    add(tmp_path)
    (tmp_path / ".partial-x.json").write_text("{")
    (tmp_path / ".hidden.json").write_text("{")
    (tmp_path / "notes.txt").write_text("x")
    assert [r.run for r in Ledger(tmp_path).records()] == ["r1"]


def _without_interval(document: dict) -> None:  # type: ignore[type-arg]
    document["measurements"][0]["interval"] = None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b"[]", "record of schema 1"),
        (b"{" * 5, "JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "recursion"),
        (lambda d: d.update(schema=2), "is a record of schema 2, and this bench reads schema 1"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d.update({"\x1b[31m\n": 1}), r"\\x1b\[31m\\n: Extra"),
        (lambda d: d["measurements"][0].update(value=float("nan")), "measurements.0.value: .*finite"),
        (lambda d: d["measurements"][0].update(n=0), "measurements.0.n"),
        (lambda d: d["measurements"][0]["settings"].update(t=[{"x": float("inf")}]), "settings: .*NaN or an infinity"),
        (lambda d: d.update(timings={"load": float("nan")}), "timings.load: .*finite"),
        (lambda d: d.update(environment={"x": float("-inf")}), "environment: .*infinity"),
        (lambda d: d["measurements"][0].pop("fingerprint"), "measurements.0.fingerprint: Field required"),
        (_without_interval, "no interval"),
    ],
)
def test_hostile_records_are_one_sentence(tmp_path: Path, content, says: str) -> None:  # type: ignore[no-untyped-def]
    add(tmp_path)
    if callable(content):
        document = json.loads((tmp_path / "r1.json").read_text())
        document["run"] = "bad"
        content(document)
        content = json.dumps(document).encode()
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(BenchError, match=says) as caught:
        read(tmp_path / "bad.json")
    sentence = str(caught.value)
    assert sentence.startswith(str(tmp_path / "bad.json"))
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert sentence.isprintable()
    with pytest.raises(BenchError, match=r"bad\.json"):
        list(Ledger(tmp_path).records())
    problems: list[str] = []
    assert [r.run for r in Ledger(tmp_path).records(problems)] == ["r1"]
    assert problems == [sentence] == Ledger(tmp_path).check()


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with open(tmp_path / "big.json", "wb") as stream:
        stream.truncate(100 * 10**6)
    assert LARGEST_RECORD < 100 * 10**6
    with pytest.raises(BenchError, match="95 MiB"):
        read(tmp_path / "big.json")


def test_file_name_is_the_run(tmp_path: Path) -> None:
    add(tmp_path).rename(tmp_path / "copy.json")
    assert "named after its run" in Ledger(tmp_path).check()[0]


def test_missing_ledger_and_record(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no ledger at"):
        list(Ledger(tmp_path / "no").records())
    with pytest.raises(BenchError, match="no record at"):
        read(tmp_path / "no.json")
    with pytest.raises(BenchError, match="not a regular file"):
        read(tmp_path)


def _write(tmp_path: Path, run: str, **changes: str) -> None:
    record = sample(run, outcomes=changes["outcomes"])
    (tmp_path / f"{run}.json").write_text(record.to_json())


@pytest.mark.parametrize("path", ["../secret.npz", "/etc/hostname", "artifacts/../../secret.npz", "a\\..\\b.npz", ""])
def test_artifacts_cannot_leave_the_folder(tmp_path: Path, path: str) -> None:
    ledger = tmp_path / "runs"
    ledger.mkdir()
    np.savez(tmp_path / "secret.npz", x=np.zeros(1))
    _write(ledger, "r1", outcomes=path)
    [problem] = Ledger(ledger).check()
    assert "leads out of the ledger" in problem
    [record] = Ledger(ledger).records()
    with pytest.raises(BenchError, match="leads out"):
        Ledger(ledger).outcomes(record, path)


def test_symbolic_links_cannot_leave_the_folder(tmp_path: Path) -> None:
    ledger = tmp_path / "runs"
    ledger.mkdir()
    np.savez(tmp_path / "secret.npz", x=np.zeros(1))
    (ledger / "inside.npz").symlink_to(tmp_path / "secret.npz")
    _write(ledger, "r1", outcomes="inside.npz")
    assert "leads out of the ledger" in Ledger(ledger).check()[0]
    add(tmp_path / "other")
    (ledger / "r2.json").symlink_to(tmp_path / "other" / "r1.json")
    assert "leads out of the ledger" in Ledger(ledger).check()[1]
    (ledger / "artifacts").symlink_to(tmp_path)
    with pytest.raises(BenchError, match="leads out"):
        add(ledger, "r3")


def test_damage_is_found(tmp_path: Path) -> None:
    add(tmp_path)
    path = tmp_path / ARTIFACTS / "r1" / "knn-k20.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "SHA-256 differs" in Ledger(tmp_path).check()[0]
    path.unlink()
    assert "cannot be read" in Ledger(tmp_path).check()[0]


def test_pickles_in_artifacts_are_not_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object))
    _write(tmp_path, "r1", outcomes="evil.npz")
    assert "plain arrays" in Ledger(tmp_path).check()[0]


def test_an_archive_that_grows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.ledger.LARGEST_ARTIFACT", 10_000)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * 100_000)
    _write(tmp_path, "r1", outcomes="bomb.npz")
    assert "unpack to more than" in Ledger(tmp_path).check()[0]


@pytest.mark.parametrize("run", ["", "../r", "a/b", ".hidden", "a\n", "x" * 300])
def test_unsafe_run_names_are_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(BenchError, match="not a safe file name"):
        Ledger(tmp_path).add(sample(run))
    with pytest.raises(BenchError, match="not a safe file name"):
        artifact("r", run or "/")


@pytest.mark.parametrize("name", ["net", "", "../../etc", "Müller & Söhne: α=.5", "名前", "a" * 500, "-rf", "\0\n"])
def test_run_ids_are_safe_unique_and_sort_by_time(tmp_path: Path, name: str) -> None:
    early, late = (run_id(moment, name, 3) for moment in ("2026-11-21T09:59:59Z", "2026-11-21T10:00:00Z"))
    assert early < late
    assert len({run_id("2026-11-21T09:59:59Z", name) for _ in range(100)}) == 100
    Ledger(tmp_path).add(sample(early))
    assert [r.run for r in Ledger(tmp_path).records()] == [early]


def _many(folder: str, worker: int) -> None:
    for i in range(10):
        add(Path(folder), f"w{worker}-{i}")


def test_two_processes_write_one_ledger(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(str(tmp_path), w)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list(Ledger(tmp_path).records())) == 20
    assert Ledger(tmp_path).check() == []
    assert not list(tmp_path.rglob(".partial-*"))


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="a file, not a folder"):
        add(tmp_path / "file")


def test_outcomes_without_a_digest_are_a_fault(tmp_path: Path) -> None:
    path = add(tmp_path)
    document = json.loads(path.read_text())
    assert document["artifacts"].popitem()
    path.write_text(json.dumps(document))
    [problem] = Ledger(tmp_path).check()
    assert "have no SHA-256 in the record" in problem
