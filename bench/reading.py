"""Reading: the features that a run's suites read, each model's over each source extracted once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.axes import Framing, Joined, at_size
from bench.suite import Needs, Other, Suite

if TYPE_CHECKING:
    import torch

    from bench.backbone import Backbone
    from bench.dataset import Splits
    from bench.featureset import FeatureSet
    from bench.progress import Progress
    from bench.protocol import Protocol
    from bench.ranks import Ranks
    from bench.stored import StoredFeatures

OPTIONAL = ("logits",)
"""Outputs that a teacher or baseline may lack although the student has them."""

NO_DATA = "none"
"""The source of a suite that reads no samples."""


class Source(NamedTuple):
    """What a group of suites shares: where the samples come from, and the precision of the forward."""

    data: str
    precision: str
    framing: Framing = Framing()


@dataclass
class Item:
    """One suite of the run, or one data set of a suite that brings its own."""

    name: str
    """The suite's name, and where it brings data sets the set's: stem of what is kept of it."""
    suite: Suite
    card: Protocol
    needs: Needs
    source: Source
    parts: tuple[str, ...] = ()
    """The stored arrays that the suite reads as ``pooled``; none: that one itself."""


class Timings(dict[str, float]):
    """Seconds by stage."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to ``stage``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        self[stage] = self.get(stage, 0.0) + seconds


class Reading:
    """What `Engine` reads, and how: on which device, in what batches, as which of several ranks.

    ``opened``: SPEC of data -> its splits; filled by the engine before anything is read.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        batch: int | None,
        workers: int | None,
        ranks: Ranks | None,
        timings: Timings,
        progress: Progress,
    ) -> None:
        self.device = device
        self.batch = batch
        self.workers = workers
        self.ranks = ranks
        self.timings = timings
        self.progress = progress
        self.opened: dict[str, Splits] = {}
        self.forwarded = 0
        """Images that went through a network in this run: with ``timings["forward"]``, its throughput."""
        self.left_out: dict[Source, dict[str, Any]] = {}
        """Images that could not be decoded, by source and split."""
        self._known: dict[tuple[int, Source], Mapping[str, FeatureSet]] = {}
        self._sized: dict[tuple[int, Framing], Backbone] = {}

    def sized(self, model: Backbone | StoredFeatures, framing: Framing) -> Backbone | StoredFeatures:
        """``model`` at the input size, resizing and filter asked for. Raises `BenchError` when it cannot be."""
        from bench.stored import StoredFeatures

        if framing == Framing() or isinstance(model, StoredFeatures):
            return model
        key = (id(model), framing)
        if key not in self._sized:
            self._sized[key] = at_size(model, *framing)
        return self._sized[key]

    def read(
        self,
        item: Item,
        items: list[Item],
        student: Backbone | StoredFeatures,
        teacher: Backbone | StoredFeatures | None,
        others: Mapping[str, Backbone | StoredFeatures],
    ) -> tuple[Mapping[str, FeatureSet], Mapping[str, FeatureSet] | None, dict[str, Other]]:
        """The features that a suite reads: the student's, the teacher's, and those of further models by role."""
        if item.needs.backbone and not item.needs.features:
            data = self._labels(item)
        else:
            data = self._features(student, item.source, items)
            if item.parts:
                data = {split: Joined(found, item.parts) for split, found in data.items()}
        guide = None
        if teacher is not None and item.needs.teacher and item.needs.features:
            guide = self._features(teacher, item.source, items, company=True)
        company = {
            role: Other(others[spec].card, self._features(others[spec], item.source, items, company=True))
            for role, spec in item.needs.others
        }
        return data, guide, company

    def _features(
        self,
        model: Backbone | StoredFeatures,
        source: Source,
        items: list[Item],
        company: bool = False,
    ) -> Mapping[str, FeatureSet]:
        """Both splits' features of ``model``, extracted once for all the suites that read this source."""
        from bench.stored import StoredFeatures

        if isinstance(model, StoredFeatures):
            return {"train": model.train, "test": model.test}
        key = (id(model), source)
        if key in self._known:
            return self._known[key]
        from bench.extract import extract

        sized = self.sized(model, source.framing)
        assert not isinstance(sized, StoredFeatures)  # They were given back above.
        mine = [item for item in items if item.source == source]
        names = sorted({name for item in mine for name in item.needs.features})
        if company and model.card.dims:
            # Suites ask for what the student has; a teacher without a classifier of its own gives the rest.
            names = [name for name in names if name in model.card.dims or name not in OPTIONAL]
        if source.data == NO_DATA:
            return {}
        splits = self.opened[source.data]
        found: dict[str, FeatureSet] = {}
        for split in ("train", "test"):
            if not any(split in item.needs.splits for item in mine):
                continue
            with self.timings.timed("extract"):
                extraction = extract(
                    sized,
                    getattr(splits, split),
                    names,
                    device=self.device,
                    precision=source.precision,
                    batch=self.batch,
                    workers=self.workers,
                    progress=self.progress,
                    rank=self.ranks.rank if self.ranks else 0,
                    world=self.ranks.world if self.ranks else 1,
                )
            for stage in ("decode", "forward", "wait", "write"):
                self.timings.add(stage, extraction.timings.get(stage, 0.0))
            self.forwarded += extraction.decoded
            if left_out := extraction.details():
                self.left_out.setdefault(source, {})[split] = left_out
            found[split] = extraction.features
        self._known[key] = found
        return found

    def _labels(self, item: Item) -> Mapping[str, FeatureSet]:
        """The splits without any feature, for a suite that forwards the network itself."""
        from bench.featureset import ArrayFeatureSet

        if item.source.data == NO_DATA:
            return {}
        splits = {split: getattr(self.opened[item.source.data], split) for split in item.needs.splits}
        return {
            split: ArrayFeatureSet(
                {}, images.labels, dataset=images.name, split=images.split, fingerprint=images.fingerprint,
                ids=images.ids, classes=dict(zip(images.class_ids, images.classes, strict=True)),
            )
            for split, images in splits.items()
        }  # fmt: skip
