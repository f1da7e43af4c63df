"""Sweep: many models, data sets and seeds from one YAML file; one record each, and no failure stops the others.

    suites: [knn, linear]
    data: [demo, "imagefolder:/data/mine"]
    seed: [0, 1]
    set: {linear.C: 0.1}
    models:
      - demo:mobilenetv2
      - {model: student.pth, arch: resnet50, name: student, teacher: teacher.pth, suites: [knn, agreement]}

What stands beside ``models`` holds for all of them; a model's own value takes its place (``protocol``, ``set`` and
``vary`` are merged). Every combination with ``data``, ``seed`` and the values of ``vary`` is a run. Paths are relative
to the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bench import interruption
from bench.axes import AXES
from bench.errors import BenchError
from bench.files import regular
from bench.job import Job
from bench.ledger import read as read_record
from bench.options import spell
from bench.plainyaml import plain
from bench.registry import nearest
from bench.request import DATA_KINDS, Request, placed
from bench.vary import combinations

if TYPE_CHECKING:
    from bench.progress import Progress
    from bench.record import Record

LARGEST = 4 * 2**20
"""Bytes of a sweep's file."""


class Common(BaseModel):
    """What a sweep and each of its models may say of a run, by the names of ``bench run``'s options."""

    model_config = ConfigDict(extra="forbid")

    suites: list[str] | None = None
    data: list[str] | None = None
    seed: list[int] | None = None
    teacher: str | None = None
    protocol: dict[str, str] = Field(default_factory=dict)
    set: dict[str, Any] = Field(default_factory=dict)
    vary: dict[str, Any] = Field(default_factory=dict)
    """As ``set``, with several values each; ``size``, ``block``, ``layers`` and ``tokens`` of every suite at once."""
    precision: str | None = None
    limit: int | None = None

    @field_validator("suites", "data", "seed", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [part.strip() for part in value.split(",")]
        return [value] if isinstance(value, int) else value

    @field_validator("set", "vary", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """``linear: {C: 1}`` is ``linear.C: 1``."""
        if not isinstance(value, dict):
            return value
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= {f"{key}.{option}": v for option, v in inner.items()} if isinstance(inner, dict) else {key: inner}
        return flat


class Model(Common):
    """One model of a sweep."""

    model: str
    name: str | None = None
    arch: str | None = None
    weights_key: str | None = None


class Sheet(Common):
    """A sweep's file."""

    models: list[Model] = Field(min_length=1)

    @field_validator("models", mode="before")
    @classmethod
    def _specs(cls, value: Any) -> Any:
        return [{"model": v} if isinstance(v, str) else v for v in value] if isinstance(value, list) else value


class Pass(NamedTuple):
    """One model over one data set: made once, however many runs read its features."""

    model: str
    arch: str | None
    weights_key: str | None
    data: str
    size: int | None
    limit: int | None
    precision: str
    images: int
    """Samples: images, or texts."""
    noun: str
    seconds: float | None
    """At the rate of an earlier record of the model; None when there is none."""


@dataclass
class Step:
    """One run of a sweep, and what became of it."""

    number: int
    request: Request
    varied: str = ""
    """The settings that tell it from the sweep's other runs, ``knn.size=448``."""
    images: int | None = None
    """Images (or texts) of both splits of its data, where they could be opened."""
    passes: list[Pass] = field(default_factory=list)
    """The forward passes that it needs when the store holds nothing of them yet."""
    status: str = "to do"
    """``to do``, ``done``, ``done before`` or ``failed``."""
    reason: str | None = None
    """Why it failed."""
    record: str | None = None
    headlines: dict[str, float] | None = None
    """``suite metric`` -> value."""

    @property
    def label(self) -> str:
        """What people call it: model, data, where it is not the first the seed, and the settings that vary."""
        seed = f", seed {self.request.seed}" if self.request.seed else ""
        own = "its own samples" if self.request.model.startswith("features:") else "the data of its suites"
        varied = f", {self.varied}" if self.varied else ""
        return f"{self.request.name or self.request.model} on {self.request.data or own}{seed}{varied}"

    def document(self) -> dict[str, Any]:
        document = asdict(self)
        return {**document, "request": self.request.model_dump(mode="json"), "passes": len(self.passes)}


def read(path: Path) -> list[Request]:
    """The runs that the file asks for, in its order. Raises `BenchError` with the line of the first fault."""
    try:
        if regular(path).st_size > LARGEST:
            raise BenchError(f"{path} is larger than {LARGEST >> 20} MiB: that is no sweep")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BenchError(f"{path} is no text: a sweep is a YAML file") from None
    except OSError as error:
        raise BenchError(f"the sweep {path} cannot be read: {error.strerror or error}") from None
    node, document = plain(text, str(path))
    if not isinstance(document, dict):
        raise BenchError(f"{path} holds no mapping: a sweep has at least `models:` and `suites:`")
    try:
        sheet = Sheet.model_validate(document)
    except ValidationError as error:
        raise _refusal(path, node, error) from None
    requests = [request for model in sheet.models for request in _runs(path, sheet, model)]
    _used(path, sheet, requests)
    seen: dict[str, int] = {}
    for number, request in enumerate(requests, 1):
        first = seen.setdefault(request.model_dump_json(), number)
        if first != number:
            raise BenchError(f"{path}: runs {first} and {number} are the same ({request.model} on {request.data})")
    return requests


def plan(requests: list[Request], runs: Path) -> list[Step]:
    """A step per request with its cost: images from the data, seconds from earlier records in ``runs``.

    Data that cannot be opened fail their steps here, before any forward pass.
    """
    from bench.data.opening import open_data
    from bench.modality import noun_of

    sizes: dict[str, tuple[int, int, str] | BenchError] = {}
    differing = _differing(requests)
    rates = _rates(runs)
    steps = []
    for number, request in enumerate(requests, 1):
        step = Step(
            number, request, ", ".join(f"{key}={spell(request.settings[key])}" for key in differing[number - 1])
        )
        steps.append(step)
        try:
            for spec, size in dict.fromkeys(_data_of(request)):
                if spec not in sizes:
                    try:
                        splits = open_data(spec)
                        sizes[spec] = len(splits.train), len(splits.test), noun_of(splits.test)
                    except BenchError as error:
                        sizes[spec] = error
                counts = sizes[spec]
                if isinstance(counts, BenchError):
                    raise counts
                images = sum(min(n, request.limit or n) for n in counts[:2])
                step.images = (step.images or 0) + images
                own = (request.model, request.arch, request.weights_key)
                teacher = [(request.teacher, None, None)] if request.teacher and size is None else []
                for model, arch, key in [own, *teacher]:
                    if not model.startswith("features:"):
                        rate = rates.get(model)
                        seconds = images / rate if rate else None
                        step.passes.append(
                            Pass(
                                model,
                                arch,
                                key,
                                spec,
                                size,
                                request.limit,
                                request.precision,
                                images,
                                counts[2],
                                seconds,
                            )
                        )
        except BenchError as error:
            interruption.check()
            step.status, step.reason, step.passes = "failed", str(error), []
    return steps


def cost(steps: list[Step]) -> str:
    """The plan's sum, in a sentence: a pass that several runs need counts once."""
    passes = {one for step in steps for one in step.passes}
    of = {noun: sum(one.images for one in passes if one.noun == noun) for noun in sorted({one.noun for one in passes})}
    counted = " and ".join(f"{count:,} {noun}" for noun, count in of.items()) or "0 images"
    text = f"{len(steps)} runs, {counted} to forward less what the store holds"
    known = sum(one.seconds for one in passes if one.seconds is not None)
    if known >= 1:
        text += f", {known / 60:.1f} min at the rates of earlier records"
    if unknown := len({one.model for one in passes if one.seconds is None}):
        text += f" ({unknown} model{'s' if unknown > 1 else ''} without an earlier record to tell a rate)"
    return text


def carry(
    steps: list[Step],
    runs: Path,
    *,
    launcher: str = "local",
    device: str = "auto",
    batch: int | None = None,
    workers: int | None = None,
    trust: bool = False,
    progress: Progress,
) -> None:
    """Carry out what is to do; a failed step keeps its reason and the others go on.

    A step whose very plan (weights, samples, protocols, libraries) has a record in ``runs`` is not computed again.
    """
    from bench.launchers.sending import sent

    todo = [step for step in steps if step.status == "to do"]
    jobs = [
        Job(step.request.anywhere(), runs.absolute(), device=device, batch=batch, workers=workers, trust=trust)
        for step in todo
    ]

    def begins(number: int) -> None:
        step = todo[number]
        progress.say(f"[{step.number}/{len(steps)}] {step.label}: {', '.join(step.request.suites)}")

    for number, outcome in sent(launcher, jobs, progress, begins):
        step = todo[number]
        if outcome.run is None:
            step.status, step.reason = "failed", outcome.reason
            progress.say(f"[{step.number}/{len(steps)}] {step.label}: failed: {step.reason}")
            continue
        step.status, step.record = "done" if outcome.new else "done before", outcome.run
        step.headlines = _headlines(read_record(runs / f"{outcome.run}.json"))


def rows(steps: list[Step]) -> list[dict[str, str]]:
    """The steps as a table for people."""
    nouns = {one.noun for step in steps for one in step.passes} or {"images"}
    noun = nouns.pop() if len(nouns) == 1 else "samples"
    return [
        {
            "run": str(step.number),
            "model": step.request.name or step.request.model,
            "data": step.request.data or "",
            "seed": str(step.request.seed),
            "suites": ",".join(step.request.suites),
            **({"varied": step.varied} if any(other.varied for other in steps) else {}),
            noun: f"{step.images:,}" if step.images is not None else "",
            "status": step.status,
            "numbers": ", ".join(f"{name} {value:.2f}" for name, value in (step.headlines or {}).items()),
        }
        for step in steps
    ]


def _differing(requests: list[Request]) -> list[list[str]]:
    """Of every run the settings that another run of the same model and suites has otherwise."""
    alike: dict[tuple[str, ...], list[Request]] = {}
    for request in requests:
        alike.setdefault((request.model, request.name or "", *request.suites), []).append(request)
    found = []
    for request in requests:
        others = alike[request.model, request.name or "", *request.suites]
        found.append([k for k, v in request.settings.items() if any(o.settings.get(k) != v for o in others)])
    return found


def _data_of(request: Request) -> list[tuple[str, int | None]]:
    """(SPEC of the data, input size where it is not the model's own) of every suite."""
    cards = request.cards().values()
    if request.model.startswith("features:"):
        return []
    return [(spec, card.axes.get("size")) for card in cards if (spec := request.data or card.data)]


def _runs(path: Path, sheet: Sheet, model: Model) -> Iterator[Request]:
    suites = model.suites or sheet.suites
    if not suites:
        raise BenchError(f"{path}: no suites for {model.model}: say `suites: [knn, linear]`, for all or for it")
    teacher = model.teacher or sheet.teacher
    settings = {k: v for k, v in sheet.set.items() if k.partition(".")[0] in suites} | model.set
    try:
        varied = list(combinations(sheet.vary | model.vary, suites))
    except BenchError as error:
        raise BenchError(f"{path}, model {model.model!a}: {error}") from None
    # Features made elsewhere bring their own samples: what is said for all of data, of their share or of the forward
    # pass is not said of them.
    common = Common() if model.model.startswith("features:") else sheet
    places: list[str | None] = [*(model.data or common.data or [])] or [None]
    for data, seed, more in product(places, model.seed or sheet.seed or [0], varied):
        try:
            yield Request.of(
                model=placed(model.model, beside=path.parent),
                suites=list(dict.fromkeys(suites)),
                teacher=placed(teacher, beside=path.parent) if teacher else None,
                data=placed(data, DATA_KINDS, path.parent) if data is not None else None,
                arch=model.arch,
                weights_key=model.weights_key,
                protocols={k: v for k, v in sheet.protocol.items() if k in suites} | model.protocol,
                settings={key: _relative_values(path.parent, value) for key, value in (settings | more).items()},
                seed=seed,
                precision=model.precision or common.precision or "auto",
                limit=model.limit or common.limit,
                name=model.name,
            )
        except BenchError as error:
            raise BenchError(f"{path}, model {model.model!a}: {error}") from None


def _used(path: Path, sheet: Sheet, requests: list[Request]) -> None:
    """Refuse what is set for all and reaches none: a typing error that nobody would notice."""
    suites = {suite for request in requests for suite in request.suites}
    for key in [*sheet.set, *sheet.protocol, *sheet.vary]:
        suite = key.partition(".")[0]
        if suite not in suites and key not in AXES:
            raise BenchError(f"{path}: '{key}' is set, but suite '{suite}' is not run{nearest(suite, sorted(suites))}")


def _relative_values(folder: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_relative_values(folder, v) for v in value]
    return placed(value, beside=folder) if isinstance(value, str) else value


def _rates(runs: Path) -> Mapping[str, float]:
    """Images per second of each model's newest forward passes recorded in ``runs``."""
    from bench.ledger import Ledger

    found: dict[str, float] = {}
    for record in Ledger(runs).mentioning('"images_forwarded": '):
        images, seconds = record.environment.get("images_forwarded"), record.timings.get("extract")
        model = record.request.get("model")
        if isinstance(model, str) and isinstance(images, int) and images > 0 and seconds:
            found.setdefault(model, images / seconds)
    return found


def _headlines(record: Record) -> dict[str, float]:
    return {f"{m.suite} {m.metric}": m.value for m in record.measurements if m.headline}


def _refusal(path: Path, node: Any, error: ValidationError) -> BenchError:
    """The first fault of a sweep's file, with its line and, for an unknown key, the nearest ones."""
    # A key that is missing may be there under another name: that says more.
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    line = node.start_mark.line + 1
    fields = Sheet.model_fields
    for part in first["loc"]:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == part:
                    line, node = key.start_mark.line + 1, value
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node, fields = node.value[part], Model.model_fields
            line = node.start_mark.line + 1
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return BenchError(f"{path}, line {line}: unknown key '{where}'{nearest(str(first['loc'][-1]), list(fields))}")
    if first["type"] == "missing":
        return BenchError(f"{path}, line {line}: `{where}` is missing")
    return BenchError(f"{path}, line {line}: {where}: {first['msg']}")
