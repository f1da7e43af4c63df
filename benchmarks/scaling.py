"""Every workload at N and 2 N: its ratio to a plain peer, what doubling the data costs, and peak memory.

    python benchmarks/scaling.py [NAME ...] [--rounds 3] [--times 1] [--json FILE]

Each measurement is a process of its own; both sizes take turns. Processor time is compared: on a machine that others
use too it is the figure to trust, with one thread (OMP_NUM_THREADS=1). ``--json`` keeps every round, for `compare.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

from workloads import WORKLOADS, apart

ALLOWED = 0.15
"""How far doubling the data may be from doubling the time."""


def main() -> None:
    """Print a line per workload."""
    parser = argparse.ArgumentParser(description="time, scaling and memory of bench's pieces")
    parser.add_argument("names", nargs="*", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=float, default=1.0, help="multiplies every N")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    rounds: list[dict[str, float]] = []
    for name in args.names or WORKLOADS:
        if name not in WORKLOADS:
            parser.error(f"unknown workload '{name}': {', '.join(WORKLOADS)}")
        n = max(1, int(WORKLOADS[name].n * args.times))
        found = [apart(name, size, root) for _ in range(args.rounds) for size in (n, 2 * n)]
        rounds += found
        print(line(name, found), flush=True)
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS')} threads")
    if args.json:
        args.json.write_text(json.dumps({"rounds": rounds}, indent=1))


def line(name: str, rounds: list[dict[str, float]]) -> str:
    """What the rounds of one workload, small and large in turn, say."""
    workload = WORKLOADS[name]
    small, large = rounds[::2], rounds[1::2]
    doubling = statistics.median(b["cpu"] / (2 * a["cpu"]) for a, b in zip(small, large, strict=True))
    own = statistics.median(own_seconds(b) / (2 * own_seconds(a)) for a, b in zip(small, large, strict=True))
    peer = statistics.median(b["cpu"] / max(b["peer"], 1e-9) for b in large)
    cpu = [statistics.median(one["cpu"] for one in sizes) for sizes in (small, large)]
    peaks = [max(one["peak"] for one in sizes) for sizes in (small, large)]
    # Less than twice is what does not grow with the data: another finding than work that grows too fast.
    # The system's part, giving out memory, is the machine's of the moment: a second for 300 MB, and then a tenth.
    verdict = "less: fixed costs" if doubling < 1 else "DOES NOT DOUBLE"
    if abs(doubling - 1) <= ALLOWED:
        verdict = "doubles"
    elif abs(own - 1) <= ALLOWED:
        verdict = "doubles but for the system's part"
    return (
        f"{name:10s} {small[0]['n']:,.0f} / {large[0]['n']:,.0f} {workload.unit}: {cpu[0]:.2f} / {cpu[1]:.2f} s of "
        f"processor, {doubling:.2f} of twice, {own:.2f} without the system's part ({verdict}); "
        f"{peer:.2f} times {workload.peer}; peak {peaks[0]:.2f} / {peaks[1]:.2f} GB"
    )


def own_seconds(one: dict[str, float]) -> float:
    """Processor seconds in the program itself."""
    return max(one["cpu"] - one.get("system", 0.0), 1e-9)


if __name__ == "__main__":
    main()
