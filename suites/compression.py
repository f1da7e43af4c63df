"""Compression: what of its teacher a student keeps (accuracy), and what it saves (size, operations, time)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from bench.bootstrap import percentile, resampled_sums
from bench.errors import BenchError
from bench.options import Allowed, count
from bench.registry import resolve
from bench.suite import Needs, Outcomes, OverSets, engine_of
from suites import cost
from suites.pairing import Network, described, networks_of

if TYPE_CHECKING:
    import torch

    from bench.backbone import Backbone
    from bench.card import Card
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Suite, Task

NO_SUITE = "none"


class Compression:
    """Retention of every suite that the card names (the first is the headline), then size, operations and speed.

    ``retention``: the student's headline number in percent of the teacher's, both computed here by one protocol on the
    same samples. The ratios are the teacher's cost over the student's: above 1 the student is the cheaper one.
    """

    name = "compression"
    default = "compression/standard@1"
    options: ClassVar[dict[str, Allowed]] = {
        "suites": Allowed(once=True),
        "batch": count(most=100_000),
        "warmup": count(0, most=1000),
        "repeats": count(6, most=10_000),
        "replicates": count(100, 10_000_000),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        parts = []
        for suite, chosen in accuracy_suites(protocol.settings["suites"]):
            part = suite.needs(chosen, card)
            if part.backbone or part.teacher:
                raise BenchError(
                    f"compression.suites={suite.name}: name suites that read stored features of one network"
                )
            parts.append(part)
        features = tuple(dict.fromkeys(name for part in parts for name in part.features))
        splits = tuple(split for split in ("train", "test") if any(split in part.splits for part in parts))
        return Needs(features, splits, teacher=True, backbone=not parts)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        suites = accuracy_suites(task.settings["suites"])
        for position, (suite, chosen) in enumerate(suites):
            yield from _retention(task, suite, chosen, headline=position == 0)
        student, teacher = task.backbone, task.teacher_backbone
        if student is None or teacher is None:
            whose = "the student" if student is None else "the teacher"
            if not suites:
                raise BenchError(f"compression: {whose} is stored features, which have no size or speed of their own")
            task.progress.warn(f"compression: size and speed are left out: {whose} is stored features")
            return
        yield from _savings(task, student, teacher, headline=not suites)


def accuracy_suites(names: list[str]) -> list[tuple[Suite, Protocol]]:
    """The suites of ``compression.suites``, each with its default protocol. Refused unless features are all they read.

    ``none`` alone stands for no suite.
    """
    from bench import protocol as protocols

    if names == [NO_SUITE]:
        return []
    found: list[tuple[Suite, Protocol]] = []
    for name in names:
        suite: Suite = resolve("suites", str(name))()
        chosen = protocols.get(str(name))
        if isinstance(suite, OverSets) or name in {"compression", "quality"}:
            raise BenchError(f"compression.suites={name}: name suites that give an accuracy on the run's own data")
        found.append((suite, chosen))
    return found


def _retention(task: Task, suite: Suite, chosen: Protocol, *, headline: bool) -> Iterator[Measurement]:
    networks = networks_of(task)
    found: dict[str, tuple[Measurement, np.ndarray | None]] = {}
    for role in ("teacher", "student"):
        network = networks[role]
        sub = dataclasses.replace(
            task, protocol=chosen, card=network.card, data=network.data, teacher=None, outcomes={}, files={}, _count=0,
            folder=task.folder / f"{suite.name}-{role}" if task.folder is not None else None,
        )  # fmt: skip
        found[role] = _headline(suite, sub)
    (t, teacher_right), (s, student_right) = found["teacher"], found["student"]
    if t.unit != "%" or not t.higher_is_better:
        raise BenchError(f"compression.suites={suite.name}: its headline '{t.metric}' is no accuracy in percent")
    if t.value <= 0:
        task.progress.warn(f"compression: retention by {suite.name} is left out: the teacher's {t.metric} is 0")
        return
    value = 100 * s.value / t.value
    interval, table, note = None, None, f"{suite.name} keeps no outcome per sample that could be resampled"
    if teacher_right is not None and student_right is not None:
        columns = np.stack([student_right, teacher_right], axis=1).astype(np.float64)
        (drawn,) = resampled_sums([columns], replicates=task.settings["replicates"], seed=task.seed)
        below = drawn[:, 1]
        interval = percentile(np.where(below > 0, 100 * drawn[:, 0] / np.where(below > 0, below, 1), np.nan), value)
        note = "undefined in more than one of twenty resamples"
        table = Outcomes(f"{suite.name}-{t.metric}", {"student": student_right, "teacher": teacher_right})
    yield task.measure(
        "retention", value, n=s.n, engine=s.engine, interval=interval,
        interval_method="paired bootstrap" if interval else None, interval_note=None if interval else note,
        split="test", outcomes=table, selection=s.selection, feature=s.feature, headline=headline, seeds=[task.seed],
        settings={"of": f"{t.protocol} {t.metric}", **_told(s.settings), "teacher": networks["teacher"].label},
        details={"student": s.value, "teacher": t.value, "networks": described(networks)},
    )  # fmt: skip


def _told(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a nested headline that name how it was computed; none that names this suite's own."""
    return {key: value for key, value in settings.items() if key not in ("of", "teacher")}


def _headline(suite: Suite, task: Task) -> tuple[Measurement, np.ndarray | None]:
    """The suite's headline on this network, and which samples it has right, bool [N], where that is its mean."""
    for index, m in enumerate(suite.evaluate(task)):
        if not m.headline:
            continue
        kept = task.outcomes.get(index)
        right = kept.arrays.get("correct") if isinstance(kept, Outcomes) else None
        if right is None or abs(100 * float(np.mean(right)) - m.value) > 1e-6:
            return m, None
        return m, np.asarray(right, dtype=bool)
    raise BenchError(f"compression.suites={suite.name}: it gave no headline on this data")


def _savings(task: Task, student: Backbone, teacher: Backbone, *, headline: bool) -> Iterator[Measurement]:
    import torch

    from bench.device import forward_mode

    assert task.teacher_card is not None
    device = torch.device(task.device)
    sides = [
        _Side.of(student, task.card, device, task.seed), _Side.of(teacher, task.teacher_card, device, task.seed)
    ]  # fmt: skip
    what = "tokens" if task.card.family == "text" else "image"
    sizes = {what: sides[0].size, f"teacher_{what}": sides[1].size}
    label = Network(task.teacher_card, {}).label
    where = {"device": cost.device_name(device), **({"threads": torch.get_num_threads()} if _on_cpu(device) else {})}
    feature = {"tokens": "none"}
    synthetic = cost.on_random_images(task, sides[0].shape)

    def measure(
        metric: str, pair: tuple[float, float], settings: dict[str, Any], interval: tuple[float, float] | None = None,
        n: int = 1, value: float | None = None, first: bool = False,
    ) -> Measurement:  # fmt: skip
        return synthetic.measure(
            metric, pair[1] / pair[0] if value is None else value, n=n, engine=engine_of("torch"), unit="",
            split="synthetic", interval=interval, headline=first,
            interval_method="bootstrap over rounds" if interval else None,
            interval_note=None if interval else "counted, not sampled", settings={**settings, "teacher": label},
            details={"student": pair[0], "teacher": pair[1]}, feature=feature,
        )  # fmt: skip

    with forward_mode(device, task.protocol.precision), task.progress.stage("compression", 4, "parts") as stage:
        counted: tuple[tuple[str, Callable[[_Side], float], dict[str, str]], ...] = (
            ("parameters_ratio", lambda side: cost.parameter_count(side.backbone, side.card), {}),
            ("bytes_ratio", lambda side: float(bytes_of(side.backbone)), {}),
            ("flops_ratio", lambda side: cost.flops(side.backbone, side.one), sizes),
        )
        for metric, of, settings in counted:
            pair = of(sides[0]), of(sides[1])
            if min(pair) <= 0:
                task.progress.warn(f"compression: {metric} is left out: a network has none to count")
                continue
            yield measure(metric, pair, dict(settings), first=headline and metric == "parameters_ratio")
        stage.advance(2)
        for metric, batch in (("latency_speedup", 1), ("throughput_speedup", task.settings["batch"])):
            seconds = alternately(
                [(side.backbone, side.one.repeat(batch, *[1] * len(side.shape))) for side in sides],
                task.settings["warmup"], task.settings["repeats"],
            )  # fmt: skip
            value, interval = speedup(seconds, task.settings["replicates"], task.seed)
            # As seconds a sample, so that both sides are read alike.
            pair = (float(np.median(seconds[:, 0])) / batch, float(np.median(seconds[:, 1])) / batch)
            yield measure(metric, pair, {**sizes, **where, "batch": batch}, interval, len(seconds), value)
            stage.advance()


class _Side(NamedTuple):
    """One network, ready to be timed."""

    backbone: Backbone
    card: Card
    shape: tuple[int, ...]
    one: torch.Tensor
    """A random image [1, 3, H, W] of the size that its own transform gives."""

    @classmethod
    def of(cls, backbone: Backbone, card: Card, device: torch.device, seed: int) -> _Side:
        if not getattr(backbone, "live", False):
            backbone.to(device)
        shape = cost.image_shape(card, 0)
        image = cost.made_up(card, shape, seed).to(device)
        return cls(backbone, card, shape, image)

    @property
    def size(self) -> str:
        return "x".join(map(str, self.shape[1:]))


def bytes_of(backbone: Backbone) -> int:
    """Bytes of all the network's tensors as it is loaded: weights and buffers, its classifier included."""
    module = getattr(backbone, "module", backbone)
    return sum(t.numel() * t.element_size() for t in module.state_dict().values())


def alternately(sides: list[tuple[Backbone, torch.Tensor]], warmup: int, repeats: int) -> np.ndarray:
    """Seconds float64 [repeats, sides]: the networks take turns, so that a machine that slows down slows down both."""
    rounds = np.empty((repeats, len(sides)))
    for i in range(repeats):
        for j, (backbone, images) in enumerate(sides):
            rounds[i, j] = cost.timed(backbone, images, warmup if i == 0 else 0, 1)[0]
    return rounds


def speedup(seconds: np.ndarray, replicates: int, seed: int) -> tuple[float, tuple[float, float] | None]:
    """Median of the teacher's seconds (column 1) over the student's (column 0), and its interval over rounds."""
    medians = np.median(seconds, axis=0)
    value = float(medians[1] / medians[0])
    rng = np.random.default_rng(seed)
    drawn = np.median(seconds[rng.integers(0, len(seconds), (min(replicates, 2000), len(seconds)))], axis=1)
    return value, percentile(drawn[:, 1] / drawn[:, 0], value)


def _on_cpu(device: torch.device) -> bool:
    return bool(device.type == "cpu")
