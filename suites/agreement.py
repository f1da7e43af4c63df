"""Agreement: does a student predict what its teacher predicts, and how do both stand to the truth?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.bootstrap import percentile, resampled_sums
from bench.errors import BenchError
from bench.improvement import gap_closed, relative_improvement
from bench.options import Allowed, count, positive, words
from bench.stats import wilson
from bench.suite import Needs, Outcomes, engine_of
from suites import fidelity, figures
from suites.pairing import Logits, described, logits_of, networks_of
from suites.predictions import Answers, Pair, answers, pair
from suites.sums import Metric, Sums, calibrated, gain, mean, ratio, total

if TYPE_CHECKING:
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task

SINGLE = ("baseline", "reference", "independent")
"""Further models, one each: the student trained without this teacher; the student of another method (plain KD), for
relative improvement; a teacher of like accuracy that the student never saw."""


class Agreement:
    """Function-space agreement on each split of the protocol; the headline is top-1 agreement on test."""

    name = "agreement"
    default = "agreement/stanton@1"
    options: ClassVar[dict[str, Allowed]] = {
        "logits": words("auto", "own", "probe"),
        "splits": words("train", "test", once=True),
        "tau": positive(1e6),
        "bins": count(most=1_000_000),
        "C": positive(),
        # Fewer make no interval.
        "replicates": count(100, 10_000_000),
        "ensemble": Allowed(once=True),
        "figures": figures.FORMATS,
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        settings = protocol.settings
        wanted = splits_of(settings)
        if settings["reference"] and not settings["baseline"]:
            raise BenchError(
                "agreement.reference (the method to improve on) needs agreement.baseline, the student without a teacher"
            )
        # Probes learn on train whatever is reported; own logits need only what is reported.
        own = settings["logits"] == "own"
        features = ("pooled", "logits") if "logits" in card.dims or own else ("pooled",)
        others = [(f"teacher{i}", str(spec)) for i, spec in enumerate(settings["ensemble"], start=2)]
        others += [(role, settings[role]) for role in SINGLE if settings[role]]
        return Needs(features, tuple(wanted) if own else ("train", "test"), teacher=True, others=tuple(others))

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        networks = networks_of(task)
        splits = splits_of(task.settings)
        logits = logits_of(task, networks, splits)
        teachers = [role for role in networks if role.startswith("teacher")]
        common = {
            "logits": logits.source,
            "teacher": "+".join(networks[role].label for role in teachers),
        }
        details: dict[str, Any] = {"networks": described(networks)}
        if logits.details:
            details["probes"] = logits.details
        for split in splits:
            target = logits.target[split]
            stage = Split(task, split, logits, teachers, common, details)
            if (unseen := int((target < 0).sum())) > 0:
                stage.details["without_training_samples"] = unseen
            yield from stage.measurements()


def splits_of(settings: dict[str, Any]) -> list[str]:
    """The splits to report, test last so that the headline closes the list."""
    wanted = list(dict.fromkeys(settings["splits"]))
    if not wanted or set(wanted) - {"train", "test"}:
        raise BenchError(f"agreement.splits are train, test or both, not '{','.join(map(str, settings['splits']))}'")
    return [split for split in ("train", "test") if split in wanted]


class Split:
    """All measurements of one split: per-sample columns, their sums over resamples, and the metrics of those sums."""

    def __init__(
        self,
        task: Task,
        split: str,
        logits: Logits,
        teachers: list[str],
        common: dict[str, Any],
        details: dict[str, Any],
    ) -> None:
        self.task, self.split, self.common, self.details = task, split, common, dict(details)
        self.bins: int = task.settings["bins"]
        self.classes = len(logits.values)
        self.values = logits.values
        self.labels = task.data[split].labels
        self.n = len(self.labels)
        self.target = target = logits.target[split]
        of = {role: found[split] for role, found in logits.by_role.items()}
        members = [of[role] for role in teachers]
        self.answers: dict[str, Answers] = {
            "student": answers([of["student"]], target, "the student"),
            "teacher": answers(members, target, "the teacher"),
        }
        tau = task.settings["tau"]
        self.pair: Pair = pair(members, of["student"], tau)
        self.agreement_of: dict[str, np.ndarray] = {}
        for role in SINGLE:
            if role in of:
                self.answers[role] = answers([of[role]], target, f"the {role}")
        for role, other in (("baseline", "teacher"), ("reference", "teacher"), ("independent", "student")):
            if role in self.answers:
                same = self.answers[role].prediction == self.answers[other].prediction
                self.agreement_of[role] = same.astype(np.float64)
        self.selection = "holdout" if logits.source == "probe" and task.settings["C"] is None else "none"
        self._columns: dict[str, np.ndarray] = {}
        self._collect()

    def _collect(self) -> None:
        t, s = self.answers["teacher"], self.answers["student"]
        self._columns = {
            "agree": self.pair.agree,
            "kl": self.pair.kl,
            "js": self.pair.js,
            "tv": self.pair.tv,
            "teacher_right": t.correct,
            "teacher_wrong": 1 - t.correct,
            "agree_teacher_wrong": self.pair.agree * (1 - t.correct),
            "lost": t.correct * (1 - s.correct),
            "won": s.correct * (1 - t.correct),
        }
        if self.pair.hinton_kl is not None:
            self._columns["hinton_kl"] = self.pair.hinton_kl
        for role, a in self.answers.items():
            self._columns[f"correct {role}"] = a.correct
            if a.nll is not None and a.brier is not None:
                self._columns[f"nll {role}"], self._columns[f"brier {role}"] = a.nll, a.brier
        for role, same in self.agreement_of.items():
            self._columns[f"agree {role}"] = same

    def measurements(self) -> Iterator[Measurement]:
        task = self.task
        with task.progress.stage(f"agreement {self.split}", 1, "bootstrap") as stage:
            whole, drawn = self._sums()
            stage.advance()
        yield from self._pair(whole, drawn)
        yield from self._networks(whole, drawn)
        yield from self._gains(whole, drawn)
        self._draw()

    def _draw(self) -> None:
        """The reliability diagram of both networks, and how the student's confusions differ from the teacher's."""
        task, where = self.task, f"{self.task.data[self.split].dataset} {self.split}"
        sides = {"Teacher": self.answers["teacher"], "Student": self.answers["student"]}
        figures.keep(
            task, f"reliability-{self.split}",
            lambda: figures.reliability(
                f"Reliability, {where}", {k: (a.confidence, a.correct) for k, a in sides.items()}, self.bins
            ),
        )  # fmt: skip
        figures.keep(task, f"confusion-{self.split}", lambda: self._confusion(sides, where))

    def _confusion(self, sides: dict[str, Answers], where: str) -> figures.Spec:
        # Classes that a probe never saw have no column.
        known = self.target >= 0
        shares = {
            k: fidelity.confusion(self.target[known], a.prediction[known], self.classes) for k, a in sides.items()
        }
        difference = shares["Student"] - shares["Teacher"]
        present = np.flatnonzero(np.isfinite(difference).all(axis=1))
        inside = np.ix_(present, present)
        if len(present) < 2:
            raise BenchError(f"confusions need samples of two classes or more, not of {len(present)}")
        names, title = self.task.data[self.split].classes, "Student less teacher, points of the true class"
        return figures.matrices(
            f"Confusion, {where}",
            {title: 100 * difference[inside]},
            [names.get(int(v), str(int(v))) for v in self.values[present]],
            ("True class", "Predicted class"), signed=(title,),
        )  # fmt: skip

    def _sums(self) -> tuple[Sums, Sums]:
        """The sums over the samples, and over each of the resamples."""
        from scipy.sparse import csr_array

        names = list(self._columns)
        table = np.stack([self._columns[name] for name in names], axis=1)
        rows = np.arange(self.n + 1)
        indicators = []
        for role in ("teacher", "student"):
            a = self.answers[role]
            # Counts, right answers and confidences by bin, and counts by predicted class: sparse, one entry a row.
            bin_of = fidelity.confidence_bins(a.confidence, self.bins)
            for data in (np.ones(self.n), a.correct, a.confidence):
                indicators.append(csr_array((data, bin_of, rows), shape=(self.n, self.bins)))
            indicators.append(csr_array((np.ones(self.n), a.prediction, rows), shape=(self.n, self.classes)))
        tables = [table, *indicators]
        drawn = resampled_sums(tables, replicates=self.task.settings["replicates"], seed=self.task.seed)
        once = [np.asarray(t.sum(axis=0))[None] for t in tables]
        return Sums(names, self.n, once), Sums(names, self.n, drawn)

    def _pair(self, whole: Sums, drawn: Sums) -> Iterator[Measurement]:
        t, s = self.answers["teacher"], self.answers["student"]
        table = Outcomes(
            f"pair-{self.split}",
            {
                "label": self.values[t.prediction],
                "prediction": self.values[s.prediction],
                "score": self.pair.teacher_class_score.astype(np.float32),
                "correct": self.pair.agree.astype(bool),
                "kl": self.pair.kl.astype(np.float32),
                "js": self.pair.js.astype(np.float32),
                "tv": self.pair.tv.astype(np.float32),
            },
        )
        task, emit = self.task, partial(self._emit, whole=whole, drawn=drawn)
        wrong = int(whole["teacher_wrong"][0])
        yield from emit(
            "agreement", mean("agree"), percent=True, share=True, headline=self.split == "test", outcomes=table,
            details=figures.captions(
                task,
                {
                    f"reliability-{self.split}": f"reliability of teacher and student, {self.split}",
                    f"confusion-{self.split}": f"the student's confusions less the teacher's, {self.split}",
                },
            ),
        )  # fmt: skip
        yield from emit("churn", lambda x: 1 - x["agree"] / x.n, percent=True, share=True, higher=False)
        yield from emit("kappa", lambda x: fidelity.kappa(x["agree"] / x.n, *x.predicted))
        yield from emit(
            "agreement_on_teacher_errors", ratio(total("agree_teacher_wrong"), total("teacher_wrong")), percent=True,
            share=True, n=wrong,
        )  # fmt: skip
        for name in ("kl", "js", "tv"):
            yield from emit(name, mean(name), higher=False, outcomes=table)
        if self.pair.hinton_kl is not None:
            yield from emit("hinton_kl", mean("hinton_kl"), higher=False, settings={"tau": self.task.settings["tau"]})
        flips = (
            ("negative_flips", "lost", "teacher_right", self.n - wrong),
            ("positive_flips", "won", "teacher_wrong", wrong),
        )
        for name, column, condition, n in flips:
            higher = name == "positive_flips"
            yield from emit(name, mean(column), percent=True, share=True, higher=higher, settings={"of": "all"})
            yield from emit(
                name, ratio(total(column), total(condition)), percent=True, share=True, n=n, higher=higher,
                settings={"of": condition},
            )  # fmt: skip
        for role in self.agreement_of:
            between = f"{role} and {'student' if role == 'independent' else 'teacher'}"
            yield from emit("agreement", mean(f"agree {role}"), percent=True, share=True, settings={"between": between})

    def _networks(self, whole: Sums, drawn: Sums) -> Iterator[Measurement]:
        emit = partial(self._emit, whole=whole, drawn=drawn)
        for role, a in self.answers.items():
            who = {"network": role}
            table = Outcomes(
                f"{role}-{self.split}",
                {
                    "label": self.labels.astype(np.int64),
                    "prediction": self.values[a.prediction],
                    "score": a.true_score.astype(np.float32),
                    "correct": a.correct.astype(bool),
                },
            )
            yield from emit("top1", mean(f"correct {role}"), percent=True, share=True, settings=who, outcomes=table)
            for name in ("nll", "brier"):
                if f"{name} {role}" in self._columns:
                    yield from emit(name, mean(f"{name} {role}"), higher=False, settings=who)
            if role in ("student", "teacher"):
                binned = {**who, "bins": self.bins}
                yield from emit("ece", calibrated(role, 0), higher=False, settings=binned)
                yield from emit("ece_debiased", calibrated(role, 1), higher=False, settings=binned)

    def _gains(self, whole: Sums, drawn: Sums) -> Iterator[Measurement]:
        emit = partial(self._emit, whole=whole, drawn=drawn, percent=True)
        yield from emit("retention", ratio(total("correct student"), total("correct teacher")))
        for other in ("teacher", "baseline", "reference"):
            if other in self.answers:
                yield from emit("gain", gain("student", other), settings={"over": other})
        if "baseline" not in self.answers:
            return
        score = {role: 100 * float(a.correct.mean()) for role, a in self.answers.items()}
        if gap_closed(score["student"], score["baseline"], score["teacher"]) is None:
            self._say("gap_closed is left out: the teacher is not above the baseline")
        else:
            yield from emit("gap_closed", ratio(gain("student", "baseline"), gain("teacher", "baseline")))
        if "reference" not in self.answers:
            return
        spread = 100 * float(gain("reference", "baseline")(drawn).std(ddof=1))
        try:
            relative_improvement([score["student"]], [score["reference"]], [score["baseline"]], se=[spread])
        except BenchError as refusal:
            self._say(f"relative_improvement is left out: {refusal}")
        else:
            yield from emit(
                "relative_improvement", ratio(gain("student", "reference"), gain("reference", "baseline")),
                details={"pairs": 1, "denominator_se": spread},
            )  # fmt: skip

    def _say(self, what: str) -> None:
        self.task.progress.warn(f"agreement, {self.split}: {what}")

    def _emit(
        self,
        metric: str,
        of: Metric,
        *,
        whole: Sums,
        drawn: Sums,
        percent: bool = False,
        share: bool = False,
        higher: bool = True,
        n: int | None = None,
        settings: dict[str, Any] | None = None,
        details: dict[str, Any] | None = None,
        **more: Any,
    ) -> Iterator[Measurement]:
        """The measurement, or nothing where it is undefined. ``share``: a proportion of ``n`` samples."""
        n = self.n if n is None else n
        if n == 0:
            self._say(f"{metric} is left out: there is no sample to take it over")
            return
        value, samples = float(of(whole)[0]), of(drawn)
        if not np.isfinite(value):
            self._say(f"{metric} is left out: it is not defined for these predictions")
            return
        interval, method = percentile(samples, value), "paired bootstrap"
        if share and (interval is None or value in (0.0, 1.0)):
            # Resamples of samples that are all alike show no spread; the binomial bound is still there.
            interval, method = wilson(round(value * n), n), "wilson"
        scale = 100.0 if percent else 1.0
        yield self.task.measure(
            metric,
            scale * value,
            n=n,
            engine=engine_of("numpy", "bench-fidelity+numpy"),
            unit="%" if percent else "",
            higher_is_better=higher,
            interval=(scale * interval[0], scale * interval[1]) if interval else None,
            interval_method=method if interval else None,
            interval_note=None if interval else "undefined in more than one of twenty resamples",
            split=self.split,
            selection=self.selection,
            seeds=[self.task.seed],
            settings={**self.common, **(settings or {})},
            details={**self.details, **(details or {})},
            **more,
        )
