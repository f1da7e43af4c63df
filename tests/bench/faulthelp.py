"""Runs of the command line as processes of their own, a fault put into them, and what is left held to a calm run.

The processes are forked from a server that has imported what is heavy and computed nothing: real processes, killed by
real signals, that start in no time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from importlib import import_module
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
MODEL = "demo:trio-kd"
RUN = ["run", "--model", MODEL, "--suite", "knn,linear", "--data", "demo", "--limit", "100", "--batch", "8"]
FEW = ["--set", "linear.points=3", "--set", "knn.k=5,20"]
SWEEP = """
suites: [knn, linear]
data: demo
limit: 100
set: {linear.points: 3, knn.k: [5, 20]}
models: [demo:trio-kd, {model: demo:trio-kd, name: again, seed: 1}]
"""

STAGES = {
    "the data are opened": "bench.data.opening:open_data",
    "the model is loaded": "bench.api:load",
    "the run is begun": "bench.journal:Journal.run",
    "stored features are checked": "bench.store:FeatureStore.verify",
    "images are forwarded": "bench.filling:Filling._forward",
    "a shard is written": "bench.shards:write_atomically",
    "a shard is in its place": "bench.store:FeatureStore.release",
    "features are read": "bench.storedset:StoredFeatureSet.array",
    "a suite begins": "bench.engine:Engine._evaluate",
    "a finished suite is kept": "bench.journal:Journal.save",
    "outcomes are written": "bench.ledger:write_atomically",
    "the record is written": "bench.record:Record.to_json",
    "the record is in its place": "bench.journal:Journal.remove",
    "the last marks are removed": "bench.journal:shutil.rmtree",
}
"""What a run is about to do -> the function that does it."""

COUNTS = {"tries": 0, "restarts": 0, "records lost": 0, "records doubled": 0}
"""Of all the faults of this session; shown at its end."""

AT_ONCE = 2
"""Trials side by side: as many as the least machine has cores."""

_ONE = threading.Lock()
"""Processes are begun, and their ends read, by one thread at a time: multiprocessing keeps one account of them all."""

T = TypeVar("T")
R = TypeVar("R")
Fault = Callable[[], None]
"""What a process does to itself before it begins; it must be importable and its arguments picklable."""


@dataclass
class Ended:
    """How a process ended."""

    code: int
    out: str
    error: str

    def sentence(self) -> str:
        """The one sentence of a refusal."""
        assert self.code == 2, (self.code, self.error)
        assert self.out == "", self.out
        assert "Traceback" not in self.error, self.error
        assert "a defect in bench" not in self.error, self.error
        last = self.error.strip().splitlines()[-1]
        assert last.startswith("bench: "), self.error
        return last


class Run:
    """One command of bench in a process, and a session, of its own."""

    def __init__(
        self, folder: Path, args: Sequence[str], fault: Fault | None = None, cwd: Path = ROOT, **variables: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        number = len(list(folder.glob("out*")))
        self._said = folder / f"out{number}", folder / f"error{number}"
        self._begun = folder / f"begun{number}"
        for path in self._said:
            path.touch()
        variables = {"BENCH_CACHE": str(folder / "cache"), "BENCH_OFFLINE": "1", "COLUMNS": "200", **variables}
        with _ONE:
            self.process = _context().Process(
                target=_carry_out, args=(list(args), cwd, variables, *self._said, self._begun, fault)
            )
            self.process.start()

    @property
    def begun(self) -> bool:
        """Whether the command itself was reached: before, the process is Python's own."""
        return self._begun.exists()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def send(self, number: int) -> None:
        """To the whole session, as a terminal and a job scheduler do."""
        # Before the process has a session of its own, its group is the server's.
        alive = self.alive()
        try:
            os.killpg(self.pid, number) if alive and os.getpgid(self.pid) == self.pid else os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def alive(self, seconds: float = 0) -> bool:
        """Whether it is still there after so many seconds; returns when it ends."""
        wait([self.process.sentinel], seconds)
        with _ONE:
            return self.process.is_alive()

    def ended(self, seconds: float = 120) -> Ended:
        if self.alive(seconds):
            self.send(signal.SIGKILL)
            raise AssertionError(f"it hangs: {self._said[1].read_text()}")
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, *(path.read_text(errors="replace") for path in self._said))


def run(folder: Path, args: Sequence[str], fault: Fault | None = None, **variables: str) -> Ended:
    """A command from its start to its end."""
    return Run(folder, args, fault, **variables).ended()


def command(*args: str | bytes | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """``bench ARGS`` from its start to its end, in this process's environment and what ``variables`` change of it.

    Its interpreter is forked: where starting one is what is tested, it is to be started.
    """
    given = [os.fsdecode(arg) for arg in args]
    with tempfile.TemporaryDirectory() as folder:
        ended = Run(Path(folder), given, cwd=cwd, **{**os.environ, **variables}).ended(300)
    return subprocess.CompletedProcess(given, ended.code, ended.out, ended.error)


def side_by_side(trial: Callable[[T], R], of: Iterable[T]) -> list[R]:
    """``trial`` of each, `AT_ONCE` at a time; each needs a folder of its own. The first failure ends them."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        trials = [pool.submit(trial, one) for one in of]
        try:
            return [one.result() for one in trials]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def evaluation(runs: Path, *more: str) -> list[str]:
    """The small evaluation that most faults fall into."""
    return [*RUN, *FEW, "--runs", str(runs), *(more or ("--workers", "0"))]


def measured(runs: Path) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """(name, seed) -> its records without what may differ between two runs, their outcomes read in.

    Every record, and every file beside it, is checked: nothing half, nothing that belongs to no record.
    """
    from bench.ledger import Ledger

    found: dict[tuple[str, int], list[dict[str, Any]]] = {}
    if not runs.is_dir():
        return found
    assert Ledger(runs).check() == []
    for path in runs.glob("*.json"):
        record = json.loads(path.read_text())
        for key in ("run", "created", "timings", "artifacts"):
            record.pop(key, None)
        # What this process did itself: a resumed run forwards fewer images.
        for key in ("peak_memory_mb", "images_forwarded"):
            record["environment"].pop(key)
        for measurement in record["measurements"]:
            measurement.pop("seconds")
            with np.load(runs / measurement.pop("outcomes")) as table:
                measurement["outcomes"] = {name: table[name].tobytes() for name in table.files}
        found.setdefault((record["name"], record["seed"]), []).append(record)
    return found


def hold(runs: Path, calm: Path, restarts: int = 0, tries: int = 1) -> None:
    """The ledger is, but for timings, that of a calm run; counted."""
    expected, found = measured(calm), measured(runs)
    lost = sum(key not in found for key in expected)
    doubled = sum(len(records) - 1 for records in found.values())
    counted = {"tries": tries, "restarts": restarts, "records lost": lost, "records doubled": doubled}
    with _ONE:
        COUNTS.update({name: COUNTS[name] + count for name, count in counted.items()})
    assert (lost, doubled) == (0, 0)
    assert found == expected
    folders = {path.name for path in (runs / "artifacts").iterdir()}
    assert folders == {path.stem for path in runs.glob("*.json")}, "outcomes without a record"
    left = [str(path) for path in (runs / ".unfinished").rglob("*")] + [str(path) for path in runs.glob(".partial-*")]
    assert left == [], left


# --- faults -----------------------------------------------------------------------------------------------------------


def at(where: str, act: Callable[[], object], nth: int = 1, *, worker: bool = False) -> None:
    """Do ``act`` when ``where`` (module:name) is called for the ``nth`` time, in a forked worker where so asked."""
    module, _, name = where.partition(":")
    owner: Any = import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original = getattr(owner, last)
    main, calls = os.getpid(), 0

    @wraps(original)
    def faulty(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and (os.getpid() != main) == worker:
            act()
        return original(*args, **options)

    setattr(owner, last, faulty)


def signal_at(stage: str, number: int, nth: int = 1, *, worker: bool = False, session: bool = False) -> Fault:
    """The process sends itself, or its whole session, a signal when it is about to do what ``stage`` names."""
    return partial(at, STAGES.get(stage, stage), partial(_send_self, number, session), nth, worker=worker)


def _send_self(number: int, session: bool) -> None:
    os.killpg(os.getpgid(0), number) if session else os.kill(os.getpid(), number)


def mistaken_at(stage: str, number: int, nth: int = 1) -> Fault:
    """A signal falls into a library that makes another error of it, as an import cut short does."""
    return partial(at, STAGES[stage], partial(_mistake, number), nth)


def _mistake(number: int) -> None:
    from bench.errors import BenchError

    try:
        _send_self(number, session=False)
    except KeyboardInterrupt:
        raise BenchError("cannot be read") from None


def clock_moved(days: int) -> None:
    """The machine's clock tells another day than the other machines'."""
    from datetime import UTC, datetime, timedelta

    real = time.time
    time.time = lambda: real() + 86_400 * days

    def now() -> str:
        return (datetime.now(UTC) + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%SZ")

    for module in ("bench.record", "bench.engine", "bench.store"):
        setattr(import_module(module), "now", now)  # noqa: B010


def delete_at(stage: str, paths: Sequence[Path], nth: int = 1) -> Fault:
    """Files vanish when the process is about to do what ``stage`` names."""
    return partial(at, STAGES[stage], partial(_delete, [str(path) for path in paths]), nth)


def _delete(paths: Sequence[str]) -> None:
    for path in paths:
        os.unlink(path)


def file_size(limit: int) -> None:
    """No file grows beyond ``limit`` bytes: a quota that needs no root."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def error_at(number: int, nth: int) -> Fault:
    """The ``nth`` file that is written meets an error of the operating system."""
    return partial(at, "bench.files:_write", partial(_fail, number), nth)


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


def close_at(stage: str, folder: Path, nth: int = 1) -> Fault:
    """``folder``, which `closable` holds, can no longer be written when the process is about to do ``stage``."""
    return partial(at, STAGES[stage], partial(_close, str(folder)), nth)


def _close(folder: str) -> None:
    if os.getuid() == 0:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        return
    for path in _folders(Path(folder)):
        path.chmod(path.stat().st_mode & ~0o222)


def _folders(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.rglob("*")) if path.is_dir()]


@contextmanager
def closable(folder: Path) -> Iterator[None]:
    """``folder`` may be closed by `close_at`: by its permissions, or, for root, whom they do not bind, by its mount."""
    if os.getuid() == 0:
        import pytest

        if subprocess.run(["mount", "--bind", folder, folder], capture_output=True).returncode:
            pytest.skip("root, whom permissions do not bind, and no mount allowed")
    try:
        yield
    finally:
        if os.getuid() == 0:
            subprocess.run(["umount", folder], check=True)
        else:
            for path in _folders(folder):
                path.chmod(path.stat().st_mode | 0o200)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """``folder`` cannot be written."""
    with closable(folder):
        _close(str(folder))
        yield


def listen() -> None:
    """Ctrl-C counts, even where the tests run in the background of a script, which turns it off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


# --- the server -------------------------------------------------------------------------------------------------------


def _context() -> Any:
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    if getattr(forkserver._forkserver, "_forkserver_pid", None) is None:  # type: ignore[attr-defined]
        # One thread each: the tests around are busy too, and pools of threads do not survive a fork.
        before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "PYTHONPATH")}
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
        context.set_forkserver_preload(["faulthelp_preload"])
        forkserver.ensure_running()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    return context


def _carry_out(
    args: list[str], cwd: Path, variables: dict[str, str], out: Path, error: Path, begun: Path, fault: Fault | None
) -> None:
    os.setsid()
    listen()
    os.environ.update(variables)
    os.chdir(cwd)
    for path, number in ((out, 1), (error, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    import bench.store

    # Several shards of few images.
    bench.store.SHARD_LEAST = 16
    if fault is not None:
        fault()
    sys.argv = ["bench", *args]
    from bench.cli import main

    begun.touch()
    main()
