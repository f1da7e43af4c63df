"""kNN search against its named peers: one search for every k and temperature, in time and memory.

    python benchmarks/knn.py [--bank 200000] [--queries 10000] [--width 384] [--k 200] [--rounds 3] [--features gauss]

Contenders take turns in one process with the same threads (OMP_NUM_THREADS); ratios are medians over rounds of this
contender's time by faiss' in the same round. Processor time is the figure to read on a machine that others use.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from suites.candidates import Way, fastest
from suites.neighbours import Neighbours, Rows, normalised, search


def main() -> None:
    """Print times, ratios and whether the neighbours agree."""
    parser = argparse.ArgumentParser(description="benchmark of the kNN search")
    parser.add_argument("--bank", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--features", choices=["gauss", "rectified"], default="gauss")
    args = parser.parse_args()
    bank, queries = features(args.bank, args.queries, args.width, args.features)
    report(f"{args.bank} x {args.width}, {args.queries} queries, k {args.k}; {torch.get_num_threads()} threads")
    report(f"fastest way here: {fastest('cpu')}")

    found: dict[str, Neighbours] = {}

    def ours(way: Way) -> None:
        found[way] = search(Rows(bank), queries, args.k, way=way)

    contenders: dict[str, Callable[[], object]] = {
        "ours, bf16": lambda: ours("bf16"),
        "ours, fp32": lambda: ours("fp32"),
        "ours, faiss": lambda: ours("faiss"),
        "float32 product alone": lambda: product(torch.from_numpy(bank), torch.from_numpy(queries)),
        "bfloat16 product alone": lambda: product(
            torch.from_numpy(bank).bfloat16(), torch.from_numpy(queries).bfloat16()
        ),
        "torch product and topk, 1000 queries at once": lambda: loop(bank, queries, args.k),
        "faiss IndexFlatIP": lambda: faiss_search(bank, queries, args.k),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, run in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    base = times["faiss IndexFlatIP"]
    for name, rounds in times.items():
        ratios = [statistics.median(a[i] / b[i] for a, b in zip(rounds, base, strict=True)) for i in (0, 1)]
        wall, cpu = (statistics.median(r[i] for r in rounds) for i in (0, 1))
        report(f"{name:46s} {wall:6.1f} s wall ({ratios[0]:.2f} of faiss), {cpu:6.1f} s processor ({ratios[1]:.2f})")
    reference = found.pop("bf16")
    for way, other in found.items():
        same = np.array_equal(reference.index, other.index) and np.array_equal(reference.similarity, other.similarity)
        report(f"bf16 and {way}: {'the same bits' if same else 'DIFFERENT'}")
    some = np.random.default_rng(1).choice(len(queries), min(200, len(queries)), replace=False)
    worst = check(bank, queries[some], reference.index[some])
    report(f"{len(some)} queries against brute force in float64: places that differ are ties within {worst:.1e}")
    report(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, all contenders")


def features(n: int, queries: int, width: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """float32 rows of length 1: isotropic, or 200 rectified clusters (nearly parallel, as pooled maps are)."""
    rng = np.random.default_rng(0)
    if kind == "gauss":
        parts = [rng.standard_normal((rows, width), dtype=np.float32) for rows in (n, queries)]
    else:
        centres = rng.standard_normal((200, width), dtype=np.float32)
        parts = [
            np.maximum(centres[rng.integers(0, 200, rows)] + rng.standard_normal((rows, width), dtype=np.float32), 0)
            for rows in (n, queries)
        ]
    return normalised(parts[0]), normalised(parts[1])


def product(bank: torch.Tensor, queries: torch.Tensor) -> None:
    for first in range(0, len(bank), 4096):
        for start in range(0, len(queries), 1024):
            torch.mm(queries[start : start + 1024], bank[first : first + 4096].T)


def loop(bank: np.ndarray, queries: np.ndarray, k: int) -> None:
    x, q = torch.from_numpy(bank), torch.from_numpy(queries)
    for start in range(0, len(q), 1000):
        (q[start : start + 1000] @ x.T).topk(k, dim=1)


def faiss_search(bank: np.ndarray, queries: np.ndarray, k: int) -> None:
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(bank)
    index.search(queries, k)


def check(bank: np.ndarray, queries: np.ndarray, index: np.ndarray) -> float:
    """The largest difference of float64 similarity at any rank between ``index`` and brute force."""
    worst = 0.0
    for query, mine in zip(queries.astype(np.float64), index, strict=True):
        similarity = np.concatenate(
            [bank[i : i + 65536].astype(np.float64) @ query for i in range(0, len(bank), 65536)]
        )
        order = np.argsort(-similarity, kind="stable")[: index.shape[1]]
        differ = order != mine
        if differ.any():
            worst = max(worst, float(np.abs(similarity[order] - similarity[mine])[differ].max()))
    return worst


def report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
