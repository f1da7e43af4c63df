"""Two arms of trainings: what a method gains, over training seeds and images, where one pair only tells two networks.

Welch's unequal-variance t-interval over the trainings' numbers (Welch 1947), and, where outcomes per sample are kept, a
hierarchical bootstrap that draws trainings within each arm and images for both arms at once (Davison & Hinkley 1997,
section 3.8; a crossed design: all trainings answer the same images). A claim needs both intervals off zero.
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel

from bench.bootstrap import resampled_sums
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.paired import holm
from bench.record import Measurement, Record
from reports.comparable import Column, column_of
from reports.wording import clean, digits, setting_label

LEAST = 5
"""Trainings in each arm for a claim about the method."""
REPLICATES = 10_000
LARGEST = 200_000_000
"""Outcomes times resamples, above which fewer resamples are drawn, 1 000 at least."""


class Arm(BaseModel):
    """One arm's numbers, a training each."""

    runs: list[str]
    values: list[float]
    mean: float
    sd: float


class Effect(BaseModel):
    """Second arm minus first in one headline."""

    suite: str
    protocol: str
    dataset: str
    split: str
    metric: str
    label: str
    unit: str
    higher_is_better: bool
    first: Arm
    second: Arm
    difference: float
    welch: tuple[float, float]
    p: float
    p_adjusted: float = 1.0
    """Holm's, over the headlines compared."""
    hierarchical: tuple[float, float] | None
    """Over trainings and images; None where outcomes are not at hand."""
    note: str | None = None
    verdict: Literal["better", "worse", "not told apart", "too few trainings"] = "not told apart"


class Arms(BaseModel):
    """The comparison of two folders of records."""

    first: str
    second: str
    trainings: tuple[int, int]
    confidence: float
    effects: list[Effect]
    claim: str
    """What may be said, in one sentence."""

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"


def run(first: Path | str, second: Path | str, *, confidence: float = 0.95) -> Arms:
    """Compare the trainings whose records lie in two folders.

    Records of the same weights are one training, the newest counts. Compared is every headline that all trainings of
    both arms have in one comparable column. Raises `BenchError` for fewer than two trainings in an arm, weights that
    are in both, and arms without a common headline.
    """
    ledgers = Ledger(first), Ledger(second)
    arms = [_trainings(ledger) for ledger in ledgers]
    for folder, arm in zip((first, second), arms, strict=True):
        if len(arm) < 2:
            raise BenchError(
                f"{folder} holds {len(arm)} training{'' if len(arm) == 1 else 's'} (records of different weights): an "
                f"arm needs two, and {LEAST} for a claim about a method"
            )
    if shared := sorted(set(arms[0]) & set(arms[1])):
        raise BenchError(f"{first} and {second} both hold records of the weights {shared[0][:19]}: arms are apart")
    effects = _effects(arms, ledgers, confidence)
    if not effects:
        raise BenchError(f"{first} and {second} have no headline that every training has in one comparable column")
    enough = min(map(len, arms)) >= LEAST
    for effect, adjusted in zip(effects, holm([e.p for e in effects]), strict=True):
        effect.p_adjusted = adjusted
        effect.verdict = _verdict(effect, enough, confidence)
    sizes = len(arms[0]), len(arms[1])
    return Arms(first=str(first), second=str(second), trainings=sizes, confidence=confidence, effects=effects,
                claim=_claim(effects, sizes))  # fmt: skip


def _trainings(ledger: Ledger) -> dict[str, Record]:
    """The newest record of each network, by weights."""
    return {record.model.weight_digest: record for record in ledger.records()}


def _headlines(record: Record) -> dict[Column, Measurement]:
    return {column_of(m, record.model): m for m in record.measurements if m.headline}


def _effects(arms: list[dict[str, Record]], ledgers: tuple[Ledger, Ledger], confidence: float) -> list[Effect]:
    tables = [[(record, _headlines(record)) for record in arm.values()] for arm in arms]
    common = [c for c in tables[0][0][1] if all(c in found for arm in tables for _, found in arm)]
    effects = []
    for column in common:
        sides = [[(record, found[column]) for record, found in arm] for arm in tables]
        first, second = (_arm(side) for side in sides)
        m = sides[0][0][1]
        difference = second.mean - first.mean
        interval, p = welch(first.values, second.values, confidence)
        outcomes, note = _outcomes(sides, ledgers)
        effects.append(
            Effect(
                suite=m.suite, protocol=m.protocol, dataset=m.dataset, split=m.split, metric=m.metric,
                label=setting_label(m), unit=m.unit, higher_is_better=m.higher_is_better, first=first, second=second,
                difference=difference, welch=interval, p=p, note=note,
                hierarchical=None if outcomes is None else hierarchical(*outcomes, confidence=confidence),
            )
        )  # fmt: skip
    return effects


def _arm(side: list[tuple[Record, Measurement]]) -> Arm:
    values = [m.value for _, m in side]
    return Arm(runs=[r.run for r, _ in side], values=values, mean=float(np.mean(values)),
               sd=float(np.std(values, ddof=1)))  # fmt: skip


def welch(first: list[float], second: list[float], confidence: float = 0.95) -> tuple[tuple[float, float], float]:
    """Interval of mean(second) - mean(first) and its two-sided p-value; all alike leave nothing to estimate."""
    from scipy.stats import ttest_ind

    if np.ptp(first) == 0 and np.ptp(second) == 0:
        difference = second[0] - first[0]
        return (difference, difference), 1.0 if difference == 0 else 0.0
    with warnings.catch_warnings():
        # Of one arm that is all alike scipy warns that its variance is nothing; the other's is what counts.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = ttest_ind(second, first, equal_var=False)
        interval = test.confidence_interval(confidence)
    return (float(interval.low), float(interval.high)), float(test.pvalue)


def _outcomes(
    sides: list[list[tuple[Record, Measurement]]], ledgers: tuple[Ledger, Ledger]
) -> tuple[tuple[np.ndarray, np.ndarray] | None, str | None]:
    """Per-sample outcomes [N, trainings] of both arms in the metric's unit, or why there are none."""
    columns: list[list[np.ndarray]] = [[], []]
    label: np.ndarray | None = None
    for side, ledger, into in zip(sides, ledgers, columns, strict=True):
        for record, m in side:
            if m.outcomes is None:
                return None, "no per-sample outcomes for this metric"
            try:
                table = ledger.outcomes(record, m.outcomes, {"label", "correct"})
            except BenchError as error:
                return None, str(error)
            scale = 100.0 if m.unit == "%" else 1.0
            if "correct" not in table or not math.isclose(
                scale * float(table["correct"].mean()), m.value, abs_tol=1e-4
            ):
                return None, "the outcomes kept are not those of this metric"
            # The label of an agreement is what the teacher says: the same for all students of one teacher.
            if label is not None and not np.array_equal(label, table.get("label", label)):
                return None, "the outcomes are of other samples: their labels differ"
            label = table.get("label", label)
            into.append(scale * table["correct"].astype(np.float64))
    return (np.stack(columns[0], axis=1), np.stack(columns[1], axis=1)), None


def hierarchical(
    first: np.ndarray, second: np.ndarray, *, confidence: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the difference of arm means; ``first`` [N, S], ``second`` [N, T] outcomes of N images.

    Every resample draws S and T trainings within the arms and N images for both. With few trainings it is somewhat
    narrow, as all percentile bootstraps are, which is why Welch's interval stands beside it.
    """
    n = len(first)
    replicates = max(1_000, min(replicates, LARGEST // (n * (first.shape[1] + second.shape[1]))))
    sums = resampled_sums([first, second], replicates=replicates, seed=seed)
    rng = np.random.default_rng([seed, 1])
    means = []
    for table in sums:
        s = table.shape[1]
        weights = rng.multinomial(s, np.full(s, 1 / s), size=replicates) / s
        means.append((table * weights).sum(axis=1) / n)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means[1] - means[0], [tail, 1 - tail])
    value = float(second.mean() - first.mean())
    return min(float(low), value), max(float(high), value)


def _verdict(effect: Effect, enough: bool, confidence: float) -> Literal[
    "better", "worse", "not told apart", "too few trainings"
]:  # fmt: skip
    if not enough:
        return "too few trainings"
    inside = [low <= 0 <= high for low, high in (effect.welch, effect.hierarchical or effect.welch)]
    if any(inside) or effect.p_adjusted > 1 - confidence:
        return "not told apart"
    return "better" if (effect.difference > 0) == effect.higher_is_better else "worse"


def _claim(effects: list[Effect], sizes: tuple[int, int]) -> str:
    if min(sizes) < LEAST:
        return (
            f"no claim about the method: {sizes[0]} and {sizes[1]} trainings, and {LEAST} an arm are needed; these "
            f"networks are all that is told of"
        )
    told = {verdict: [f"{e.suite} {e.metric} ({e.dataset})" for e in effects if e.verdict == verdict]
            for verdict in ("better", "worse", "not told apart")}  # fmt: skip
    parts = [f"{verdict} in {', '.join(names)}" for verdict, names in told.items() if names]
    return f"over {sizes[0]} and {sizes[1]} trainings the second arm is {'; '.join(parts)}"


def render(arms: Arms) -> str:
    """The table, a headline a line, and the claim."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    stream = io.StringIO()
    console = Console(file=stream, width=110, highlight=False)
    console.print(Text(f"{clean(arms.second)} ({arms.trainings[1]} trainings) minus {clean(arms.first)} "
                       f"({arms.trainings[0]} trainings)\n"))  # fmt: skip
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("", overflow="fold")
    sure = f"{arms.confidence:.0%}"
    for head in ("first (sd)", "second (sd)", "difference", f"Welch {sure}", "trainings and samples", "p"):
        table.add_column(head, justify="right", no_wrap=True)
    for e in arms.effects:
        at = digits(e.unit)
        bounds = [f"{i[0]:.{at}f} … {i[1]:.{at}f}" if i else "none" for i in (e.welch, e.hierarchical)]
        name = " ".join(filter(None, (e.protocol, e.dataset, e.split, e.metric)))
        table.add_row(
            Text(clean(name)), f"{e.first.mean:.{at}f} ({e.first.sd:.{at}f})",
            f"{e.second.mean:.{at}f} ({e.second.sd:.{at}f})", f"{e.difference:+.{at}f}", *bounds, f"{e.p_adjusted:.3g}",
        )  # fmt: skip
    console.print(table)
    for e in arms.effects:
        if e.note:
            console.print(Text(clean(f"  {e.suite} {e.metric}: no interval over samples: {e.note}")))
    console.print(Text(f"\n{clean(arms.claim)}"))
    return stream.getvalue().rstrip() + "\n"
