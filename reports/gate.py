"""The gate: is the candidate worse than the baseline? One headline per suite, paired on the same samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, Field

from bench.errors import BenchError
from bench.record import Measurement, Record
from bench.registry import nearest
from reports import baseline as sources
from reports import tolerance
from reports.baseline import Source
from reports.comparable import Column, differences, exact_column
from reports.outcomes import Run, Table, churn, identical, repeated, sampling, tables_of, the_same, unpaired
from reports.verdict import Evidence, Judgement, Outcome, between_trainings, judge
from reports.wording import digits, setting_label

Mode = Literal["numerics", "training"]


class Verdict(BaseModel):
    """One gated measurement. Numbers are in its unit; ``difference`` is candidate minus reference."""

    name: str
    suite: str
    protocol: str
    dataset: str
    split: str
    fingerprint: str
    metric: str
    settings: dict[str, Any]
    label: str
    unit: str
    higher_is_better: bool
    outcome: Outcome
    reason: str
    """One sentence."""
    reference: float | None = None
    candidate: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    tolerance: float | None = None
    p: float | None = None
    """One-sided, of no loss."""
    p_adjusted: float | None = None
    n: int | None = None
    needed: int | None = None
    """Samples that the asked tolerance needs, when there are too few."""
    reference_runs: list[str] = Field(default_factory=list)
    candidate_runs: list[str] = Field(default_factory=list)
    method: str = "none"
    notes: list[str] = Field(default_factory=list)


class Report(BaseModel):
    """What the gate says."""

    baseline: str
    candidate: str
    mode: Mode
    confidence: float
    allow_inconclusive: bool
    verdicts: list[Verdict]
    exit_code: int

    def count(self, outcome: Outcome) -> int:
        return sum(v.outcome == outcome for v in self.verdicts)

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"

    @property
    def sentence(self) -> str:
        """The whole gate in one line: ``regressed: 10 pass, 1 improved, 1 regressed of 12 in mode numerics``."""
        counts = {o: self.count(o) for o in get_args(Outcome)}
        word = {0: "passed", 1: "regressed", 2: "cannot judge"}[self.exit_code]
        told = ", ".join(f"{n} {outcome}" for outcome, n in counts.items() if n)
        return f"{word}: {told} of {len(self.verdicts)} in mode {self.mode}"


class _Key(NamedTuple):
    """What pairs a measurement of one side with one of the other."""

    name: str
    suite: str
    protocol: str
    fingerprint: str
    split: str
    metric: str
    settings: str


_Side = dict[_Key, list[Run]]


def run(
    baseline: str | Path,
    candidate: str | Path,
    *,
    mode: Mode = "numerics",
    config: Path | str | None = None,
    allow_inconclusive: bool = False,
) -> Report:
    """Judge ``candidate`` by ``baseline``: folders, records, or ``git:REF:path`` of either.

    ``numerics`` speaks of these two networks only; ``training`` of the recipe that made them, and needs several
    baseline runs or a declared deviation. ``config``: a gate.toml (reports.tolerance). Raises `BenchError` when a side
    cannot be read, when nothing is gated, and when ``training`` knows no deviation.
    """
    limits = tolerance.load(config)
    with sources.opened(str(baseline)) as before, sources.opened(str(candidate)) as after:
        return judge_sides(before, after, mode=mode, limits=limits, allow_inconclusive=allow_inconclusive)


def judge_sides(
    before: Source,
    after: Source,
    *,
    mode: Mode = "numerics",
    limits: tolerance.Tolerances | None = None,
    allow_inconclusive: bool = False,
) -> Report:
    """As `run`, on sources that are open already."""
    limits = limits or tolerance.load()
    ours, theirs = _side(before.records), _side(after.records)
    verdicts: list[Verdict] = []
    pending: list[tuple[Verdict, Evidence, float]] = []
    gated = _headlines(before.records)
    if not gated:
        raise BenchError(f"no record in {before.spec} marks a headline measurement: there is nothing to gate")
    for key in gated:
        verdict = _blank(key, ours[key], theirs.get(key, []))
        verdicts.append(verdict)
        newest = ours[key][-1].measurement
        verdict.tolerance = limit = limits.of(newest)
        if key not in theirs:
            _explain_missing(verdict, key, ours[key], theirs)
            continue
        if reasons := _incomparable(ours[key] + theirs[key], limits):
            _close(verdict, "incomparable", f"not comparable: {'; '.join(reasons)}")
            continue
        declared = limits.seed_deviation(newest)
        trainings = len(_trainings(ours[key]))
        if mode == "training" and declared is None and trainings < limits.training.minimum_runs:
            raise BenchError(
                f"--mode training needs {limits.training.minimum_runs} baseline trainings of '{key.name}' for "
                f"{key.suite} (there are {trainings}) or training.seed_deviation.{key.suite} in gate.toml: "
                f"without either nobody knows how far two trainings lie apart"
            )
        tables = tables_of(ours[key], before), tables_of(theirs[key], after)
        evidence = _evidence(verdict, (ours[key], theirs[key]), tables, mode, declared)
        if evidence is not None and limit is None and not evidence.identical:
            name = f"{verdict.suite}.{verdict.metric}"
            _close(
                verdict, "inconclusive", f'no tolerance for {name}: write "{name}" = X below [tolerance] in gate.toml'
            )
        elif evidence is not None:
            pending.append((verdict, evidence, limit or 0.0))
    judged = judge([e for _, e, _ in pending], [limit for *_, limit in pending], limits.confidence)
    for (verdict, evidence, limit), judgement in zip(pending, judged, strict=True):
        _fill(verdict, evidence, limit, judgement)
    return Report(
        baseline=before.spec, candidate=after.spec, mode=mode, confidence=limits.confidence,
        allow_inconclusive=allow_inconclusive, verdicts=verdicts, exit_code=exit_code(verdicts, allow_inconclusive),
    )  # fmt: skip


def exit_code(verdicts: Sequence[Verdict], allow_inconclusive: bool) -> int:
    """1 when anything regressed, else 2 when anything could not be judged and that is not allowed, else 0."""
    outcomes = {v.outcome for v in verdicts}
    if "regressed" in outcomes:
        return 1
    return 2 if outcomes & {"inconclusive", "missing", "incomparable"} and not allow_inconclusive else 0


def _key(record: Record, m: Measurement) -> _Key:
    column = exact_column(m)
    return _Key(record.name, m.suite, m.protocol, m.fingerprint, m.split, m.metric, column.settings)


def _side(records: Sequence[Record]) -> _Side:
    side: _Side = {}
    for record in records:
        for m in record.measurements:
            side.setdefault(_key(record, m), []).append(Run(record, m))
    return side


def _headlines(records: Sequence[Record]) -> list[_Key]:
    """One key per (name, suite, protocol, data): the first that a record marks, so that few tests share the error."""
    chosen: dict[tuple[str, ...], _Key] = {}
    for record in records:
        for m in record.measurements:
            if m.headline:
                key = _key(record, m)
                chosen.setdefault(key[:5], key)
    return list(chosen.values())


def _blank(key: _Key, ours: list[Run], theirs: list[Run]) -> Verdict:
    m = ours[-1].measurement
    return Verdict(
        name=key.name, suite=m.suite, protocol=m.protocol, dataset=m.dataset, split=m.split, fingerprint=m.fingerprint,
        metric=m.metric, settings=m.settings, label=setting_label(m), unit=m.unit, higher_is_better=m.higher_is_better,
        outcome="missing", reason="", reference=statistics.fmean(r.measurement.value for r in ours),
        candidate=statistics.fmean(r.measurement.value for r in theirs) if theirs else None, n=m.n,
        reference_runs=[r.record.run for r in ours], candidate_runs=[r.record.run for r in theirs],
    )  # fmt: skip


def _close(verdict: Verdict, outcome: Outcome, reason: str) -> None:
    verdict.outcome, verdict.reason = outcome, reason


def _explain_missing(verdict: Verdict, key: _Key, ours: list[Run], theirs: _Side) -> None:
    """Missing, or there in another form: then the form is what cannot be compared."""
    others = [runs for other, runs in theirs.items() if (other.name, other.suite) == (key.name, key.suite)]
    same_metric = [runs for runs in others if runs[0].measurement.metric == key.metric]
    if same_metric:
        mine = exact_column(ours[-1].measurement)
        reasons = min((differences(mine, exact_column(runs[-1].measurement)) for runs in same_metric), key=len)
        _close(verdict, "incomparable", f"not comparable: {'; '.join(reasons)}")
        return
    names = sorted({other.name for other in theirs})
    if key.name not in names:
        _close(verdict, "missing", f"the candidate has no model named '{key.name}'{nearest(key.name, names)}")
    else:
        _close(verdict, "missing", f"the candidate has no {key.suite} {key.metric} of '{key.name}'")


def _incomparable(runs: Sequence[Run], limits: tolerance.Tolerances) -> list[str]:
    """Fields in which the runs of both sides differ, library versions left aside where gate.toml says so."""

    def column(m: Measurement) -> Column:
        found = exact_column(m)
        return found if limits.engine_versions == "same" else found._replace(engine=m.engine.name)

    first = column(runs[0].measurement)
    for run_ in runs[1:]:
        reasons = differences(first, column(run_.measurement))
        if reasons:
            if any(reason.startswith("engine ") for reason in reasons) and limits.engine_versions == "same":
                reasons.append('set engine_versions = "any" in gate.toml to judge an upgrade of a library')
            return reasons
    return []


def _evidence(
    verdict: Verdict,
    sides: tuple[list[Run], list[Run]],
    tables: tuple[list[Table] | str, list[Table] | str],
    mode: Mode,
    declared: float | None,
) -> Evidence | None:
    """What the records say about the difference; None when the verdict had to be closed without one."""
    ours, theirs = sides
    m = ours[-1].measurement
    difference = statistics.fmean(r.measurement.value for r in theirs) - statistics.fmean(
        r.measurement.value for r in ours
    )
    verdict.difference = difference
    gain = difference if m.higher_is_better else -difference
    error = _error(verdict, sides, tables, difference, mode)
    if error == 0:
        return Evidence(0.0, 0.0, m.n, 0.0, identical=True)
    if error is None:
        _close(verdict, "inconclusive", "neither per-sample outcomes nor an interval say how sure this number is")
        return None
    if mode == "training":
        total, degrees = between_trainings(error, _trainings(ours), len(_trainings(theirs)), declared)
        return Evidence(gain, total, m.n, error, degrees)
    if len({r.record.model.weight_digest for r in [*ours, *theirs]}) > 1:
        verdict.notes.append("the weights differ: this speaks of these networks alone, --mode training of their recipe")
    return Evidence(gain, error, m.n, error)


def _trainings(runs: Sequence[Run]) -> list[float]:
    """The value of each training: runs of the same weights are one training, evaluated again."""
    values: dict[str, list[float]] = {}
    for run_ in runs:
        values.setdefault(run_.record.model.weight_digest, []).append(run_.measurement.value)
    return [statistics.fmean(of_one) for of_one in values.values()]


def _error(
    verdict: Verdict,
    sides: tuple[list[Run], list[Run]],
    tables: tuple[list[Table] | str, list[Table] | str],
    difference: float,
    mode: Mode,
) -> float | None:
    """Standard error from sampling, in the metric's unit; 0 when every outcome is the same, None when unknown."""
    first, second = tables
    m = sides[0][-1].measurement
    if not isinstance(first, str) and not isinstance(second, str):
        if identical(m.metric, [*first, *second]) or (difference == 0 and the_same([*first, *second])):
            verdict.method = "identical outcomes"
            return 0.0
        scale = 100.0 if m.unit == "%" else 1.0
        found = sampling(m.metric, first, second, difference / scale)
        if not isinstance(found, str):
            verdict.method = "paired"
            verdict.notes += churn(first[-1], second[-1]) if mode == "numerics" else []
            return scale * found
        problem = found
    else:
        problem = first if isinstance(first, str) else str(second)
    verdict.notes.append(f"unpaired: {problem}")
    verdict.method = "unpaired"
    error = unpaired(m, sides[1][-1].measurement)
    if difference == 0 and mode == "numerics" and (error is None or repeated([*sides[0], *sides[1]])):
        verdict.method = "equal values"
        return 0.0
    return error or None


def _fill(verdict: Verdict, evidence: Evidence, limit: float, judgement: Judgement) -> None:
    low, high = judgement.low, judgement.high
    verdict.interval = (low, high) if verdict.higher_is_better else (0.0 - high, 0.0 - low)
    verdict.p, verdict.p_adjusted = judgement.p, judgement.p_adjusted
    verdict.needed = judgement.needed
    places = digits(verdict.unit)
    said = {
        "pass": f"a loss of more than {limit:g} is ruled out",
        "improved": "better beyond the noise",
        "regressed": f"lost {-evidence.gain:.{places}f}, more than {limit:g} and beyond the noise",
        "inconclusive": f"{verdict.n:,} samples cannot tell a loss of {limit:g} from none",
    }[judgement.outcome]
    if evidence.identical:
        said = "every sample has the same outcome" if verdict.method != "equal values" else "the same value"
    if judgement.outcome == "inconclusive":
        if judgement.needed is not None:
            said += f"; about {judgement.needed:,} are needed at this noise"
        elif evidence.sampling < evidence.error:
            said += "; no number of samples would do, for trainings differ too much: give more runs or more tolerance"
        else:
            said += "; the loss lies at the tolerance itself"
    _close(verdict, judgement.outcome, said)
