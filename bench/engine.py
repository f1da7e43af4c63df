"""The way through the house for one run: features once, every suite on them, one Record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from bench import interruption
from bench._version import __version__
from bench.card import Card, digest_of
from bench.errors import BenchError
from bench.inputs import check_unchanged, inputs_of
from bench.items import is_made, items_of, over_sets
from bench.journal import Journal
from bench.ledger import Ledger, artifact, as_table, run_id
from bench.progress import watching
from bench.reading import NO_DATA, Item, Reading, Timings
from bench.record import Measurement, Record, now
from bench.suite import Other, Outcomes, Task

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bench.backbone import Backbone
    from bench.featureset import FeatureSet
    from bench.progress import Progress
    from bench.protocol import Protocol
    from bench.ranks import Ranks
    from bench.request import Request
    from bench.stored import StoredFeatures


class Engine:
    """Carries out one request. ``timings`` collects seconds by stage."""

    def __init__(
        self,
        request: Request,
        cards: Mapping[str, Protocol],
        *,
        runs: Path | None,
        device: str,
        batch: int | None,
        workers: int | None,
        progress: Progress,
        ranks: Ranks | None = None,
    ) -> None:
        from bench.device import choose

        self.request = request
        self.cards = cards
        self.runs = runs
        self.batch = batch
        self.workers = workers
        self.progress = progress
        self.device: torch.device = choose(device)
        self.timings = Timings()
        self.timed = self.timings.timed
        self.reading = Reading(
            device=self.device, batch=batch, workers=workers, ranks=ranks, timings=self.timings, progress=progress
        )
        self._started = time.perf_counter()
        self._opened = self.reading.opened
        self.missing: dict[str, dict[str, str]] = {}
        """Suite -> SPEC of a data set of its own that is not here -> why."""

    def run(
        self,
        student: Backbone | StoredFeatures,
        teacher: Backbone | StoredFeatures | None = None,
        expect: Record | None = None,
        reuse: bool = False,
    ) -> Record:
        """Evaluate and return the Record, written to the ledger where there is one; see `bench.api.carry_out`."""
        with _evaluating(student), _evaluating(teacher), watching(self.progress):
            items = items_of(self.request, self.cards, student, self.reading)
            if teacher is not None and not any(item.needs.teacher for item in items):
                raise BenchError(f"a teacher was given, but no suite of this run reads one ({', '.join(self.cards)})")
            lonely = [item.name for item in items if item.needs.teacher and teacher is None]
            if lonely:
                raise BenchError(f"suite '{lonely[0]}' compares with a teacher: say which with --teacher SPEC")
            items = self._open_data(items)
            others = self._load_others(items)
            self._check_modality([student, teacher, *others.values()])
            inputs = inputs_of(
                {"the model": student, "the teacher": teacher, **others},
                {"the data" if spec == self.request.data else spec: found for spec, found in self._opened.items()},
            )
            guide_card = teacher.card if teacher is not None else None
            if expect is not None:
                check_unchanged(expect, student.card, guide_card, inputs)
            cards = [model.card for model in others.values()]
            plan = self._plan(items, student.card, guide_card, cards, inputs)
            if reuse and self.runs is not None and (made := self._made_before(plan, student.card)) is not None:
                Ledger(self.runs).settle(made.run)
                Journal(self.runs, plan).settle(made.run)
                return made
            run = run_id(now(), self._name(student), self.request.seed)
            journal = Journal(self.runs, plan) if self.runs is not None else None
            if journal is not None and self.runs is not None:
                run = journal.run(self._name(student), run)
                # Another attempt may have got as far as the record: just now, or before it could tidy up.
                if (made := Ledger(self.runs).find(run)) is not None:
                    Ledger(self.runs).settle(run)
                    journal.remove()
                    return made
                if reuse and (made := self._made_before(plan, student.card)) is not None:
                    journal.withdraw(self._name(student))
                    return made
            try:
                measurements, outcomes = self._all(items, student, teacher, others, journal)
            except BaseException:
                if journal is not None:
                    journal.withdraw(self._name(student))
                raise
            return self._record(run, student, teacher, inputs, plan, measurements, outcomes, journal)

    def _all(
        self,
        items: list[Item],
        student: Backbone | StoredFeatures,
        teacher: Backbone | StoredFeatures | None,
        others: Mapping[str, Backbone | StoredFeatures],
        journal: Journal | None,
    ) -> tuple[list[Measurement], dict[str, dict[str, np.ndarray]]]:
        """Every suite's measurements and outcome tables; each is kept in the journal as it ends."""
        measurements: list[Measurement] = []
        outcomes: dict[str, dict[str, np.ndarray]] = {}
        for item in items:
            done = journal.load(item.name) if journal is not None else None
            if done is None:
                data, guide, company = self.reading.read(item, items, student, teacher, others)
                folder = journal.folder / item.name if journal is not None else None
                done = self._evaluate(item, student, data, teacher, guide, company, folder)
                interruption.check()
                if journal is not None:
                    journal.save(item.name, *done)
            else:
                self.progress.say(f"{item.name}: taken over from the interrupted run")
            measurements += done[0]
            outcomes |= done[1]
            self.timings[item.name] = done[2]
        interruption.check()
        measurements += self._summaries(items, measurements)
        return measurements, outcomes

    def share(self, student: Backbone | StoredFeatures, teacher: Backbone | StoredFeatures | None = None) -> None:
        """Extract what `run` would read, as one of several ranks; evaluate and write nothing but the store."""
        with watching(self.progress):
            items = items_of(self.request, self.cards, student, self.reading)
            items = self._open_data(items)
            others = self._load_others(items)
            self._check_modality([student, teacher, *others.values()])
            for item in items:
                self.reading.read(item, items, student, teacher, others)

    def _open_data(self, items: list[Item]) -> list[Item]:
        """Open every data set before the first forward: a missing one must not cost an hour first.

        The items that can be evaluated: of a suite that brings several sets, those that are here.
        """
        from bench.data.opening import limited, open_data

        lost: dict[str, BenchError] = {}
        for spec in sorted({item.source.data for item in items} - {"features", NO_DATA}):
            with self.timed("data"):
                try:
                    splits = open_data(spec)
                except BenchError as refusal:
                    lost[spec] = refusal
                    continue
                if self.request.limit is not None:
                    limit = self.request.limit
                    splits = splits._replace(train=limited(splits.train, limit), test=limited(splits.test, limit))
                self._opened[spec] = splits
        kept = []
        for item in items:
            why = lost.get(item.source.data)
            if why is None:
                kept.append(item)
            elif over_sets(item.suite) is not None and not is_made(item.suite, item.source.data):
                self.missing.setdefault(item.card.suite, {})[item.source.data] = str(why)
            else:
                raise why
        for suite, sets in self.missing.items():
            if not any(item.card.suite == suite for item in kept):
                first = next(iter(sets.values()))
                raise BenchError(f"suite '{suite}' finds none of its data sets ({', '.join(sets)}); the first: {first}")
            for spec, sentence in sets.items():
                self.progress.warn(f"{suite} goes without {spec}: {sentence}")
        return kept

    def _summaries(self, items: list[Item], measurements: list[Measurement]) -> list[Measurement]:
        """What the suites that bring several data sets say of all of them together."""
        found: list[Measurement] = []
        for name, card in self.cards.items():
            suite = over_sets(next((item.suite for item in items if item.card.suite == name), None))
            if suite is not None:
                mine = [m for m in measurements if m.suite == name]
                found += suite.summary(card, mine, self.missing.get(name, {}))
        return found

    def _load_others(self, items: list[Item]) -> dict[str, Backbone | StoredFeatures]:
        """The further models that suites name in their options, each loaded once, by SPEC."""
        from bench.loading import load

        specs = dict.fromkeys(spec for item in items for _, spec in item.needs.others)
        with self.timed("load"):
            # A bare weight file says nothing of its network: it is then taken for the student's.
            return {spec: load(spec, self.request.arch if Path(spec).is_file() else None) for spec in specs}

    def _name(self, student: Backbone | StoredFeatures) -> str:
        return self.request.name or student.card.name

    def _check_modality(self, models: list[Backbone | StoredFeatures | None]) -> None:
        from bench.modality import check
        from bench.stored import StoredFeatures

        check([model.card for model in models if model and not isinstance(model, StoredFeatures)], self._opened)

    def _plan(
        self, items: list[Item], student: Card, teacher: Card | None, others: list[Card], inputs: dict[str, str]
    ) -> str:
        """Digest of everything that the run's numbers depend on."""
        from bench.environment import libraries

        return digest_of(
            {
                "bench": __version__,
                "libraries": libraries(),
                "device": self.device.type,
                "seed": self.request.seed,
                "model": student.model_dump(mode="json"),
                "teacher": teacher.model_dump(mode="json") if teacher is not None else None,
                "others": [card.model_dump(mode="json") for card in others],
                "inputs": inputs,
                "suites": [item.card.model_dump(mode="json") for item in items],
            }
        )

    def _made_before(self, plan: str, student: Card) -> Record | None:
        name = self.request.name or student.name
        ledger = Ledger(self.runs or "")
        return next((r for r in ledger.mentioning(plan) if r.environment.get("plan") == plan and r.name == name), None)

    def _evaluate(
        self,
        item: Item,
        student: Backbone | StoredFeatures,
        data: Mapping[str, FeatureSet],
        teacher: Backbone | StoredFeatures | None,
        guide: Mapping[str, FeatureSet] | None,
        others: Mapping[str, Other],
        folder: Path | None,
    ) -> tuple[list[Measurement], dict[str, dict[str, np.ndarray]], float]:
        from bench.device import float32_products
        from bench.stored import StoredFeatures

        student = self.reading.sized(student, item.source.framing)
        task = Task(
            protocol=item.card,
            card=student.card,
            data=data,
            seed=self.request.seed,
            device=str(self.device),
            progress=self.progress,
            backbone=None if isinstance(student, StoredFeatures) else student,
            teacher=guide,
            teacher_card=teacher.card if teacher is not None else None,
            teacher_backbone=None if isinstance(teacher, StoredFeatures) else teacher,
            others=others,
            images=self._opened[item.source.data]._asdict() if item.source.data in self._opened else {},
            batch=self.batch,
            workers=self.workers,
            folder=folder,
            source=item.source.data,
        )
        start = time.perf_counter()
        last = start
        measurements: list[Measurement] = []
        tables: dict[str, dict[str, np.ndarray]] = {}
        # A training loop around us may have traded precision for speed: not in what is measured here.
        with float32_products():
            for index, measurement in enumerate(item.suite.evaluate(task)):
                outcome: Outcomes | str | None = task.outcomes.get(index)
                update: dict[str, object] = {}
                if outcome is not None and self.runs is not None:
                    name = f"{item.name}-{outcome if isinstance(outcome, str) else outcome.name}"
                    if not isinstance(outcome, str):
                        tables[name] = outcome.arrays
                    update["outcomes"] = name
                if item.source in self.reading.left_out and item.needs.features:
                    update["details"] = {**measurement.details, "left_out": self.reading.left_out[item.source]}
                if not measurement.seconds:
                    update["seconds"] = time.perf_counter() - last
                last = time.perf_counter()
                measurements.append(measurement.model_copy(update=update))
        if self.runs is not None:
            tables |= {f"{item.name}-{name}": as_table(content) for name, content in task.files.items()}
        if not measurements:
            raise BenchError(f"suite '{item.name}' ({item.card.id}) gave no number on this data")
        return measurements, tables, time.perf_counter() - start

    def _record(
        self,
        run: str,
        student: Backbone | StoredFeatures,
        teacher: Backbone | StoredFeatures | None,
        inputs: dict[str, str],
        plan: str,
        measurements: list[Measurement],
        outcomes: dict[str, dict[str, np.ndarray]],
        journal: Journal | None,
    ) -> Record:
        from bench.environment import environment, peak_memory_mb

        for index, measurement in enumerate(measurements):
            if measurement.outcomes is not None:
                path = artifact(run, measurement.outcomes)
                measurements[index] = measurement.model_copy(update={"outcomes": path})
        device = str(self.device)
        record = Record(
            run=run,
            name=self._name(student),
            seed=self.request.seed,
            created=now(),
            request=self.request.anywhere().model_dump(mode="json"),
            model=student.card,
            teacher=teacher.card if teacher is not None else None,
            inputs=inputs,
            measurements=measurements,
            environment={
                **environment(device),
                "peak_memory_mb": peak_memory_mb(device),
                "images_forwarded": self.reading.forwarded,
                "plan": plan,
            },
            timings={**self.timings, "total": time.perf_counter() - self._started},
        )
        if self.runs is not None and journal is not None:
            ledger = Ledger(self.runs)
            with journal.ending():
                # Another process that was asked for the same at the same time may have been first.
                made = ledger.find(run)
                if made is None:
                    ledger.discard(run)
                    ledger.add(record, outcomes)
                ledger.settle(run)
                journal.remove()
            return made or record
        return record


@contextmanager
def _evaluating(model: Backbone | StoredFeatures | None) -> Iterator[None]:
    """A live module is put into evaluation and given back as it was; a loaded one already is."""
    context = getattr(model, "evaluating", nullcontext)
    with context():
        yield
