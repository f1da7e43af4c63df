"""Retrieval on labelled sets: who is of my class comes first. Mean average precision and recall among the k nearest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.axes import FROZEN
from bench.errors import BenchError
from bench.options import Allowed, count, words
from bench.stats import wilson
from bench.suite import Needs, Outcomes, engine_of
from suites import jackknife
from suites.average_precision import along_ranks
from suites.classification import features_of
from suites.neighbours import normalised

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

ROOM = 16_000_000
"""Similarities held at a time."""
SPLITS, FEWER, MANY = 15, 5, 10_000
"""Times that the samples are halved for the intervals, and how often when there are more than `MANY`."""


@dataclass
class Found:
    """Per query, for those that have something to find."""

    query: np.ndarray
    """int64 [Q]: row of the query."""
    ap: np.ndarray
    """float64 [Q]: average precision over the whole ranking."""
    ap_at_r: np.ndarray
    """float64 [Q]: the same over the first R ranks alone, R the number of relevant ones (MAP@R)."""
    first: np.ndarray
    """int64 [Q]: rank, from 1, of the first relevant one."""


class Retrieval:
    """Cosine similarity of the frozen feature; queries are the test split, ranked against it or against train."""

    name = "retrieval"
    default = "retrieval/self@1"
    axes: ClassVar[tuple[str, ...]] = FROZEN
    options: ClassVar[dict[str, Allowed]] = {"k": count(a_set=True), "bank": words("test", "train")}

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        return Needs(splits=("train", "test") if protocol.settings["bank"] == "train" else ("test",))

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        test = task.data["test"]
        bank = task.data[task.settings["bank"]]
        if bank.labels.ndim > 1:
            raise BenchError(f"{test.dataset} has many labels an image: retrieval asks for one")
        alone = bank is test
        halves = Halves(len(test), task.settings["k"], task.seed) if alone else None
        with task.progress.stage("retrieval", len(test), "queries") as stage:
            found = ranked(
                normalised(features_of(test, "pooled")), test.labels, normalised(features_of(bank, "pooled")),
                bank.labels, own=alone, advance=stage.advance,
                halves=halves,
            )  # fmt: skip
        n = len(found.query)
        if not n:
            raise BenchError(f"no sample of {test.dataset} {test.split} has another of its class: nothing can be found")
        details: dict[str, Any] = {"bank": len(bank) - alone}
        if n < len(test):
            details["queries_without_relevant"] = len(test) - n
        common: dict[str, Any] = {
            "n": n,
            "engine": engine_of("numpy"),
            "details": details,
            "outcomes": Outcomes(
                "queries", {"query": found.query, "ap": found.ap, "ap_at_r": found.ap_at_r, "first": found.first}
            ),
        }
        named = [("map", found.ap), ("map_at_r", found.ap_at_r)]
        named += [("recall", found.first <= k) for k in task.settings["k"]]
        for place, (metric, values) in enumerate(named):
            mean = float(values.mean())
            around, how = _around(values) if halves is None else halves.interval(mean, place, n)
            if metric == "recall":
                common["settings"] = {"k": task.settings["k"][place - 2]}
            yield task.measure(
                metric, 100 * float(values.sum()) / n, headline=not place,
                interval=None if around is None else (100 * around[0], 100 * around[1]),
                interval_method=how if around is not None else None, interval_note=how if around is None else None,
                **common,
            )  # fmt: skip


def ranked(
    queries: np.ndarray,
    query_labels: np.ndarray,
    bank: np.ndarray,
    bank_labels: np.ndarray,
    *,
    own: bool = False,
    advance: Any = None,
    halves: Halves | None = None,
) -> Found:
    """The whole ranking of ``bank`` [N, D] for every row of ``queries`` [Q, D], both of length 1.

    Similarities are summed in float64; equal ones rank by bank row. ``own``: query i is bank row i and left out;
    then ``halves`` are told every ranking too.
    """
    n = len(bank)
    counts = dict(zip(*np.unique(bank_labels, return_counts=True), strict=True))
    total = np.array([int(counts.get(label, 0)) - own for label in query_labels], dtype=np.int64)
    wide = bank.astype(np.float64)
    step = max(1, ROOM // max(n, 1))
    rows, aps, at_r, firsts = [], [], [], []
    for start in range(0, len(queries), step):
        chosen = np.arange(start, min(start + step, len(queries)))
        similarity = queries[chosen].astype(np.float64) @ wide.T
        if own:
            # Last of all, and irrelevant.
            similarity[np.arange(len(chosen)), chosen] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")
        relevant = bank_labels[order] == query_labels[chosen][:, None]
        if own:
            relevant[:, -1] = False
            if halves is not None:
                halves.add(chosen, order[:, :-1], relevant[:, :-1])
        has = total[chosen] > 0
        relevant, here = relevant[has], chosen[has]
        rows.append(here)
        aps.append(along_ranks(relevant, total[here]))
        within = np.arange(1, n + 1)[None, :] <= total[here][:, None]
        at_r.append(along_ranks(relevant & within, total[here]))
        firsts.append(relevant.argmax(axis=1) + 1)
        if advance is not None:
            advance(len(chosen))
    return Found(*(np.concatenate(part) for part in (rows, aps, at_r, firsts)))


def _around(values: np.ndarray) -> tuple[tuple[float, float] | None, str]:
    """(interval, its method) of the mean of queries' ``values``, the bank as it is; (None, why not)."""
    n, mean = len(values), float(values.mean())
    if values.dtype == bool:
        return wilson(int(values.sum()), n), "wilson"
    if n < 2:
        return None, "a single query"
    error = float(values.std(ddof=1)) / n**0.5
    return jackknife.interval(mean, error, n, n), "t over queries, on the logit scale"


class Halves:
    """The metrics over random halves of the samples, each ranked within itself.

    Where samples are queries and bank at once, queries share what they find, and a spread over queries alone is too
    small: 95 % intervals of it held the truth 73 to 80 % of the time. That of halves is the delete-half jackknife (Shao
    & Wu 1989), which needs no smoothness of the metric; it covers samples in both roles, and is a little wide.
    """

    def __init__(self, n: int, ks: Sequence[int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._side = [rng.permutation(n) % 2 == 0 for _ in range(SPLITS if n <= MANY else FEWER)]
        self._ks = tuple(ks)
        self._sums = np.zeros((len(self._side), 2, 2 + len(self._ks)))
        self._queries = np.zeros((len(self._side), 2))

    def add(self, queries: np.ndarray, order: np.ndarray, relevant: np.ndarray) -> None:
        """The rankings [Q, N - 1] of ``queries`` int64 [Q] without themselves: bank rows, and what is relevant."""
        for sums, seen, side in zip(self._sums, self._queries, self._side, strict=True):
            kept = side[order] == side[queries][:, None]
            hit = relevant & kept
            total = hit.sum(axis=1)
            has = total > 0
            kept, hit, total, mine = kept[has], hit[has], total[has], side[queries[has]].astype(int)
            place = np.cumsum(kept, axis=1, dtype=np.int32)
            precision = np.cumsum(hit, axis=1, dtype=np.int32) / np.maximum(place, 1) * hit
            within = place <= total[:, None]
            first = np.take_along_axis(place, hit.argmax(axis=1)[:, None], axis=1)[:, 0] if len(hit) else total
            columns = [precision.sum(axis=1) / total, (precision * within).sum(axis=1) / total]
            columns += [first <= k for k in self._ks]
            for column, values in enumerate(columns):
                sums[:, column] += np.bincount(mine, weights=values, minlength=2)
            seen += np.bincount(mine, minlength=2)

    def interval(self, value: float, metric: int, n: int) -> tuple[tuple[float, float] | None, str]:
        """(interval, its method) around ``value`` of ``n`` queries; ``metric``: 0 map, 1 map at R, then recall by k."""
        if not self._queries.all():
            return None, "halves of the samples have no pair of a class"
        means = (self._sums[:, :, metric] / self._queries).ravel()
        error = float(means.std(ddof=1))
        return jackknife.interval(value, error, len(means), n), "delete-half jackknife, on the logit scale"
