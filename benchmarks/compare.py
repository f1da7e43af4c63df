"""Whether a change made bench slower: two git references measured in turn, or two files of `scaling.py --json`.

    python benchmarks/compare.py main HEAD [--only knn,store] [--rounds 7] [--times 1]
    python benchmarks/compare.py before.json after.json

Both references run the workloads of this checkout, each in a process of its own, first one and then the other, so that
whatever else the machine does falls on both. Every pair gives a ratio (second / first); a workload is slower when the
95 % interval of the geometric mean of its ratios lies above 1 by more than ``--allowed``. Exit code 1: one is slower.
Rounds from files were not measured in turn: their intervals do not know what the machine did between.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from workloads import WORKLOADS, apart

ROOT = Path(__file__).resolve().parents[1]
Rounds = dict[tuple[str, int], list[dict[str, float]]]
"""(workload, N) -> its rounds."""


class Verdict(NamedTuple):
    """The geometric mean of the pairs' ratios with its 95 % interval, and what it says."""

    ratio: float
    low: float
    high: float
    word: str


def judge(first: Sequence[float], second: Sequence[float], allowed: float = 0.02) -> Verdict:
    """Paired times: Student's interval of the mean log ratio. At least two pairs, or it cannot be told."""
    from scipy.stats import t

    logs = [math.log(b / a) for a, b in zip(first, second, strict=True)]
    middle = statistics.fmean(logs)
    if len(logs) < 2:
        return Verdict(math.exp(middle), 0.0, math.inf, "cannot be told from one pair")
    half = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(middle - half), math.exp(middle + half)
    word = "SLOWER" if low > 1 + allowed else "faster" if high < 1 - allowed else "no difference shown"
    return Verdict(math.exp(middle), low, high, word)


def main() -> None:
    """Print a line per workload and size; exit 1 when one is slower."""
    parser = argparse.ArgumentParser(description="paired comparison of two states of bench")
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--only", help="workloads, comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--times", type=float, default=1.0, help="multiplies every N")
    parser.add_argument("--allowed", type=float, default=0.02, help="a share that does not count as slower")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(WORKLOADS)
    if unknown := [name for name in names if name not in WORKLOADS]:
        parser.error(f"unknown workload '{unknown[0]}': {', '.join(WORKLOADS)}")
    if args.first.endswith(".json") and args.second.endswith(".json"):
        first, second = (from_file(Path(path)) for path in (args.first, args.second))
    else:
        first, second = in_turn(args.first, args.second, names, args.rounds, args.times)
    slower = [line for line, is_slower in report(first, second, args.allowed) if is_slower]
    sys.exit(1 if slower else 0)


def report(first: Rounds, second: Rounds, allowed: float) -> list[tuple[str, bool]]:
    """A line per workload and size that both have, printed; and whether it is slower."""
    lines = []
    for key in first:
        if key not in second or len(first[key]) != len(second[key]):
            print(f"{key[0]} {key[1]}: measured on one side only, or in another number of rounds")
            continue
        times = [[one["cpu"] for one in side[key]] for side in (first, second)]
        found = judge(*times, allowed=allowed)
        memory = max(one["peak"] for one in second[key]) / max(one["peak"] for one in first[key])
        pairs = " ".join(f"{b / a:.2f}" for a, b in zip(*times, strict=True))
        line = (
            f"{key[0]:10s} {key[1]:>9,}: {found.ratio:.3f} ({found.low:.3f} to {found.high:.3f}) {found.word}; "
            f"peak memory {memory:.2f}; pairs {pairs}"
        )
        print(line, flush=True)
        lines.append((line, found.word == "SLOWER"))
    return lines


def from_file(path: Path) -> Rounds:
    found: Rounds = {}
    for one in json.loads(path.read_text())["rounds"]:
        found.setdefault((one["name"], int(one["n"])), []).append(one)
    return found


def in_turn(first: str, second: str, names: Sequence[str], rounds: int, times: float) -> tuple[Rounds, Rounds]:
    """Both references in work trees of their own, measured one after the other, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        trees = [Path(folder) / "first", Path(folder) / "second"]
        try:
            for ref, tree in zip((first, second), trees, strict=True):
                git("worktree", "add", "--detach", str(tree), ref)
            found: tuple[Rounds, Rounds] = ({}, {})
            for name in names:
                n = max(1, int(WORKLOADS[name].n * times))
                for number in range(rounds):
                    # The order changes from round to round: what heats up does so for both.
                    for side in (0, 1) if number % 2 == 0 else (1, 0):
                        found[side].setdefault((name, n), []).append(apart(name, n, trees[side]))
            return found
        finally:
            for tree in trees:
                if tree.exists():
                    git("worktree", "remove", "--force", str(tree))


def git(*args: str) -> None:
    done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(args)}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
