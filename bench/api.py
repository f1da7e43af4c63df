"""The library's second verb: `run` suites on a model."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bench.errors import BenchError
from bench.files import at_home
from bench.loading import load

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.progress import Progress
    from bench.ranks import Ranks
    from bench.record import Record
    from bench.request import Request
    from bench.stored import StoredFeatures


def run(
    model: str | Path | Backbone | StoredFeatures,
    suites: Sequence[str],
    data: str | None = None,
    *,
    teacher: str | Path | Backbone | StoredFeatures | None = None,
    arch: str | None = None,
    weights_key: str | None = None,
    protocols: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
    runs: str | Path | None = None,
    name: str | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    batch: int | None = None,
    workers: int | None = None,
    limit: int | None = None,
    trust: bool = False,
    launcher: str = "local",
    progress: Progress | None = None,
) -> Record:
    """Evaluate ``model`` by ``suites`` on ``data`` and return the Record.

    ``model``: a SPEC, a `Backbone` from `load` or `wrap`, or `StoredFeatures`. ``protocols``: suite -> protocol name.
    ``settings``: ``suite.option`` -> value, each making a named variant. ``runs``: the ledger's folder; None keeps the
    Record in memory alone (per-sample outcomes are then not kept). Other arguments are those of ``bench run``.
    Raises `BenchError` for anything that cannot be carried out.
    """
    from bench.request import Request

    asked: dict[str, str | None] = {"arch": arch, "weights_key": weights_key}
    if (had := getattr(model, "asked", None)) is not None:
        if given := [name for name, value in asked.items() if value is not None]:
            raise BenchError(
                f"{given[0]} says how a SPEC is read, and the model given is loaded: give it to bench.load"
            )
        asked = had
    for name_, value in (("protocols", protocols), ("settings", settings)):
        if value is not None and not isinstance(value, Mapping):
            raise BenchError(f"{name_} is a mapping of names to values, not a {type(value).__name__}")
    if not isinstance(suites, str | list | tuple):
        raise BenchError(f"suites is a list of names, not {suites!r}")
    request = Request.of(
        model=_spec(model, "model"),
        teacher=None if teacher is None else _spec(teacher, "teacher"),
        suites=[suites] if isinstance(suites, str) else list(suites),
        data=data,
        **asked,
        protocols=dict(protocols or {}),
        settings=dict(settings or {}),
        seed=seed,
        precision=precision,
        limit=limit,
        name=name,
    )
    return carry_out(
        request, model=model, teacher=teacher, runs=runs, device=device, batch=batch, workers=workers, trust=trust,
        launcher=launcher, progress=progress,
    )  # fmt: skip


def _spec(model: Any, argument: str) -> str:
    """The SPEC of what was handed over, for the request."""
    if isinstance(model, str | Path):
        return str(model)
    spec = getattr(getattr(model, "card", None), "spec", None)
    if not isinstance(spec, str):
        what = "a bare torch module: bench.wrap(module) makes a model of it" if _is_module(model) else f"{model!r:.80}"
        raise BenchError(f"{argument} is a SPEC, or what bench.load or bench.wrap gave, not {what}")
    return spec


def _whole(name: str, value: Any, least: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise BenchError(f"{name} is a whole number of at least {least}, not {value!r:.80}")
    return int(value)


def _is_module(model: Any) -> bool:
    # Whoever holds a module has imported torch; nobody else pays for it here.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def repeat(
    record: str | Path,
    *,
    runs: str | Path | None = None,
    device: str = "auto",
    batch: int | None = None,
    workers: int | None = None,
    trust: bool = False,
    launcher: str = "local",
    progress: Progress | None = None,
) -> Record:
    """The run of a record again: same request, and refused when weights or data are no longer those of the record."""
    request, old = recorded(record)
    return carry_out(
        request, runs=runs, device=device, batch=batch, workers=workers, trust=trust, launcher=launcher,
        progress=progress, expect=old,
    )  # fmt: skip


def recorded(record: str | Path) -> tuple[Request, Record]:
    """The record in a file, and the request that it was made from. Raises `BenchError` when it cannot be repeated."""
    from bench.ledger import read
    from bench.request import Request

    path = at_home(record)
    old = read(path)
    try:
        request = Request.model_validate(old.request)
    except ValidationError:
        raise BenchError(
            f"{path} does not say how it was run (its request is incomplete): it cannot be repeated"
        ) from None
    if "live" in (request.model, request.teacher):
        raise BenchError(f"{path} was made from a live module in a training loop: there is no checkpoint to run again")
    return request, old


def carry_out(
    request: Request,
    *,
    model: str | Path | Backbone | StoredFeatures | None = None,
    teacher: str | Path | Backbone | StoredFeatures | None = None,
    runs: str | Path | None = None,
    device: str = "auto",
    batch: int | None = None,
    workers: int | None = None,
    trust: bool = False,
    launcher: str = "local",
    ranks: Ranks | None = None,
    progress: Progress | None = None,
    expect: Record | None = None,
    reuse: bool = False,
) -> Record:
    """Check the request, load what it names, and hand over to the engine.

    ``launcher``: ``torchrun`` has several processes share the forward passes. ``ranks``: this is one of several
    processes that somebody else started for the same request. ``expect``: the record that this run repeats.
    ``reuse``: give back the ledger's record of the very same plan, where it has one, instead of a second one.
    """
    from bench import launchers
    from bench.files import check_writable
    from bench.progress import Progress

    cards = request.cards()  # The cheap refusals come before torch is imported.
    batch, workers = _whole("batch", batch, 1), _whole("workers", workers, 0)
    if progress is not None and not isinstance(progress, Progress):
        raise BenchError(f"progress is a bench.progress.Progress, not a {type(progress).__name__}")
    launchers.check(launcher)
    if launcher not in ("local", "torchrun"):
        raise BenchError(f"launcher '{launcher}' sends runs elsewhere: that is for bench run and bench sweep")
    loaded = [given for given in (model, teacher) if given is not None and not isinstance(given, str | Path)]
    if launcher != "local" and loaded:
        raise BenchError(f"launcher '{launcher}' needs SPECs that other processes can load, not a model in memory")
    if runs is not None:
        if not isinstance(runs, str | Path) or not str(runs).strip() or "\0" in str(runs):
            raise BenchError(f"runs is the path of a folder, not {runs!r:.80}")
        check_writable(at_home(runs))

    from bench.engine import Engine

    progress = progress or Progress(quiet=True)
    engine = Engine(
        request,
        cards,
        runs=at_home(runs) if runs is not None else None,
        device=device,
        batch=batch,
        workers=workers,
        ranks=ranks,
        progress=progress,
    )
    with engine.timed("load"):
        student = _loaded(model, request.model, request.arch, request.weights_key, trust)
        guide = _loaded(teacher, request.teacher, None, None, trust)
    assert student is not None
    if launcher == "torchrun":
        from bench.launchers.torchrun import fill

        with engine.timed("share"):
            fill(request, device=device, batch=batch, workers=workers, trust=trust, progress=progress)
    return engine.run(student, guide, expect=expect, reuse=reuse)


def share(request: Request, ranks: Ranks, *, device: str, batch: int | None, workers: int | None, trust: bool) -> None:
    """Make this rank's share of the features that ``request`` reads, in the store; evaluate nothing."""
    from bench.engine import Engine
    from bench.progress import Progress
    from bench.ranks import device_of

    engine = Engine(
        request, request.cards(), runs=None, device=device_of(device, ranks), batch=batch, workers=workers,
        ranks=ranks, progress=Progress(quiet=True),
    )  # fmt: skip
    student = _loaded(None, request.model, request.arch, request.weights_key, trust)
    assert student is not None
    engine.share(student, _loaded(None, request.teacher, None, None, trust))


def _loaded(
    given: str | Path | Backbone | StoredFeatures | None,
    spec: str | None,
    arch: str | None,
    weights_key: str | None,
    trust: bool,
) -> Backbone | StoredFeatures | None:
    found = spec if given is None else given
    return load(found, arch, weights_key, trust) if isinstance(found, str | Path) else found
