"""The workloads of `scaling.py` and `compare.py`: a piece of bench on N samples, and a plain peer on the same N.

    python benchmarks/workloads.py NAME N

runs one of them in this process, prepared beforehand, and prints what it took as a line of JSON.
"""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

Work = Callable[[], object]


class Workload(NamedTuple):
    """``prepare(n, folder)`` gives the work and its peer; ``n`` is the smaller of the two sizes that are measured."""

    n: int
    unit: str
    peer: str
    prepare: Callable[[int, Path], tuple[Work, Work]]


def starting(*args: str) -> Callable[[int, Path], tuple[Work, Work]]:
    """``bench`` with these arguments, N times, by the interpreter that runs this."""

    def prepare(n: int, folder: Path) -> tuple[Work, Work]:
        def times(*command: str) -> Work:
            return lambda: [
                subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL) for _ in range(n)
            ]

        times("-m", "bench", *args)()  # compiles what was never compiled
        return times("-m", "bench", *args), times("-c", "import typer")

    return prepare


def extraction(n: int, folder: Path) -> tuple[Work, Work]:
    import torch
    from extraction import Network, Pictures, bare

    from bench.cpu import cpu_pass
    from bench.extract import CPU_BATCH, extract
    from bench.progress import Progress
    from bench.transform import apply

    network, pictures, device = Network("mobilenetv3_small_100"), Pictures(n, jpeg=False), torch.device("cpu")
    size = min(CPU_BATCH, n)
    transform = network.card.transform
    assert transform is not None
    batch = torch.stack([apply(transform, pictures.image(i)) for i in range(size)])
    quiet = Progress(io.StringIO(), quiet=True)

    def alone() -> None:
        with cpu_pass(network, device):
            bare(network, [batch] * (n // size), device)

    return lambda: extract(network, pictures, ["pooled"], device=device, workers=0, progress=quiet), alone


def reading(n: int, folder: Path) -> tuple[Work, Work]:
    from outofcore import Generated, stored

    from bench.storedset import StoredFeatureSet

    data = Generated("train", n, 100)
    stored(data, 384).close()
    np.zeros((n, 384), dtype=np.float32).tofile(folder / "raw")

    def read() -> None:
        store = stored(data, 384)
        assert store.verify(again=True) == []
        StoredFeatureSet(data, {"pooled": store}).array("pooled")

    return read, lambda: np.fromfile(folder / "raw", dtype=np.float32)


def search(n: int, folder: Path) -> tuple[Work, Work]:
    from knn import faiss_search, features

    from suites.neighbours import Rows
    from suites.neighbours import search as ours

    bank, queries = features(n, 1000, 384, "gauss")
    return lambda: ours(Rows(bank), queries, 200), lambda: faiss_search(bank, queries, 200)


def heads(n: int, folder: Path) -> tuple[Work, Work]:
    from heads import RATES, products

    from suites.heads import Recipe, learn

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, 384), dtype=np.float32), rng.integers(0, 100, n)
    recipe = Recipe(rates=RATES, iterations=n // 1024, batch=1024)
    return lambda: learn(x, y, 100, recipe, 0), lambda: products(x, 100, recipe)


def logistic(n: int, folder: Path) -> tuple[Work, Work]:
    from logistic import scikit_learn

    from suites.logreg_path import Path as Penalties

    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, n)
    x = rng.standard_normal((10, 128))[y] + 4 * rng.standard_normal((n, 128))
    x = x.astype(np.float32)
    grid = [float(c) for c in 10 ** np.linspace(-6, 0, 13)]
    few = x[:10], y[:10]

    def peer() -> None:
        for c in grid:
            scikit_learn(x, y, *few, c, 1000)

    return lambda: Penalties(x, y, 10).fit(grid, tol=1e-4, max_iter=1000), peer


def ridge(n: int, folder: Path) -> tuple[Work, Work]:
    from outofcore import CARD, Generated, stored

    from bench import protocol
    from bench.progress import Progress
    from bench.registry import resolve
    from bench.storedset import StoredFeatureSet
    from bench.suite import Task

    sets = {split: Generated(split, size, 100) for split, size in (("train", n), ("test", 1000))}
    data = {split: StoredFeatureSet(found, {"pooled": stored(found, 384)}) for split, found in sets.items()}
    card = protocol.get("ridge")
    x = data["train"].array("pooled").astype(np.float64)

    def ours() -> None:
        for _ in resolve("suites", "ridge")().evaluate(Task(card, CARD, data, 0, "cpu", Progress(quiet=True))):
            pass

    return ours, lambda: np.linalg.eigh(x.T @ x)


def publishing(n: int, folder: Path) -> tuple[Work, Work]:
    import bench
    from bench.ledger import Ledger
    from bench.registry import resolve

    rng = np.random.default_rng(0)
    for split, size in (("train", 60), ("test", 300)):
        y = np.arange(size) % 3
        np.savez(folder / f"{split}.npz", x=(3 * np.eye(3)[y] + rng.standard_normal((size, 3))).astype(np.float32), y=y)
    runs = folder / "runs"
    first = bench.run(f"features:{folder}", ["knn"], settings={"knn.k": 20}, runs=runs).run
    text = (runs / f"{first}.json").read_text()
    for number in range(1, n):
        run = f"{first}-{number}"
        (runs / f"{run}.json").write_text(
            text.replace(first, run).replace('"name": "', f'"name": "model {number} of ', 1)
        )
        (runs / "artifacts" / run).mkdir()
        for path in (runs / "artifacts" / first).iterdir():
            (runs / "artifacts" / run / path.name).write_bytes(path.read_bytes())
    assert Ledger(runs).check() == []
    return lambda: resolve("reports", "site")(runs, folder / "site"), lambda: list(Ledger(runs).records())


WORKLOADS = {
    "help": Workload(3, "starts", "import typer", starting("--help")),
    "list": Workload(3, "starts", "import typer", starting("list", "suites")),
    "extraction": Workload(384, "images", "the bare forward", extraction),
    "store": Workload(200_000, "rows of 384", "np.fromfile", reading),
    "knn": Workload(200_000, "rows of 384", "faiss IndexFlatIP", search),
    "heads": Workload(81_920, "samples", "the two products alone", heads),
    "logistic": Workload(8_000, "samples", "scikit-learn, cold", logistic),
    "ridge": Workload(50_000, "rows of 384", "NumPy's Gram matrix and eigh", ridge),
    "publish": Workload(400, "records", "reading the records", publishing),
}


def spent() -> float:
    """Processor seconds of this process and of those that it waited for."""
    return sum(usage.ru_utime for usage in usages()) + system()


def system() -> float:
    """Of `spent` what the system worked for them: giving out and clearing memory above all."""
    return sum(usage.ru_stime for usage in usages())


def usages() -> tuple[resource.struct_rusage, resource.struct_rusage]:
    return resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)


def peak() -> float:
    """GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(name: str, n: int) -> dict[str, float | str]:
    """Run one workload and its peer in this process: seconds of processor and wall time, GB at the most."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_CACHE"] = f"{folder}/cache"
        work, peer = WORKLOADS[name].prepare(n, Path(folder))
        wall, cpu, given = time.perf_counter(), spent(), system()
        work()
        wall, cpu, given, most = time.perf_counter() - wall, spent() - cpu, system() - given, peak()
        begun = spent()
        peer()
        return {"name": name, "n": n, "wall": wall, "cpu": cpu, "system": given, "peer": spent() - begun, "peak": most}


def apart(name: str, n: int, root: Path) -> dict[str, float]:
    """`measure` in a process of its own, with the packages that are in ``root``."""
    environment = {**os.environ, "PYTHONPATH": str(root), "BENCH_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, name, str(n)], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} with {n} cannot be measured in {root}: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
