"""Items: what a run computes, one suite over one data set each, before anything is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.axes import Framing
from bench.card import digest_of
from bench.errors import BenchError
from bench.reading import NO_DATA, Item, Reading, Source
from bench.registry import resolve
from bench.suite import Needs, OverSets, Suite

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.protocol import Protocol
    from bench.request import Request
    from bench.stored import StoredFeatures


def items_of(
    request: Request, cards: Mapping[str, Protocol], student: Backbone | StoredFeatures, reading: Reading
) -> list[Item]:
    """An item per suite, one per data set for a suite that brings its own.

    Raises `BenchError` for what does not go together: stored features with data, with a network's own suites.
    """
    from bench.stored import StoredFeatures

    stored = isinstance(student, StoredFeatures)
    if stored and request.data is not None:
        raise BenchError(f"{request.model} brings its own samples, so --data {request.data} cannot apply: leave it out")
    if stored and request.limit is not None:
        raise BenchError(f"--limit chooses among images, and {request.model} are features: shorten the arrays")
    if stored and request.precision not in ("auto", "fp32"):
        raise BenchError(f"--precision {request.precision} is that of the forward pass, which {request.model} is past")
    items = []
    bring = [name for name in cards if over_sets(resolve("suites", name)())]
    if stored and bring:
        raise BenchError(f"suite '{bring[0]}' brings data sets of its own: stored features are of other samples")
    if request.data is not None and len(bring) == len(cards):
        raise BenchError(f"suite '{bring[0]}' brings data sets of its own: leave --data {request.data} out")
    for name, card in cards.items():
        suite: Suite = resolve("suites", name)()
        needs = suite.needs(card, student.card)
        needs, parts = _along(request, card, needs, student, reading)
        framing = Framing.of(card.axes)
        if (over := over_sets(suite)) is not None:
            for spec in over.data_sets(card):
                part = f"{name}-{_plain(spec)}"
                items.append(Item(part, suite, card, needs, Source(spec, card.precision, framing), parts))
            continue
        if stored and needs.backbone:
            raise BenchError(f"suite '{name}' runs the network itself: it cannot be computed from stored features")
        data = "features" if stored else request.data or card.data if needs.splits else NO_DATA
        if data is None:
            raise BenchError(f"suite '{name}' ({card.id}) has no published data set: say which with --data SPEC")
        items.append(Item(name, suite, card, needs, Source(data, card.precision, framing), parts))
    return items


def _along(
    request: Request, card: Protocol, needs: Needs, student: Backbone | StoredFeatures, reading: Reading
) -> tuple[Needs, tuple[str, ...]]:
    """(the needs with the axes of ``card`` applied, the arrays that the suite is to read as ``pooled``)."""
    from bench.axes import parts_of
    from bench.stored import StoredFeatures

    if not card.axes:
        return needs, ()
    if isinstance(student, StoredFeatures):
        raise BenchError(
            f"{card.suite}.{next(iter(card.axes))} is chosen when a network reads images, which "
            f"{request.model} are past"
        )
    parts = parts_of(card.axes, student.card, card.id)
    if parts and "pooled" not in needs.features:
        asked = next(axis for axis in ("block", "layers", "tokens") if axis in card.axes)
        raise BenchError(f"{card.id} does not read the pooled feature: {card.suite}.{asked} cannot apply")
    for axis in ("resize", "resample"):
        if axis in card.axes and not needs.features:
            raise BenchError(f"{card.id} makes its own crops of the images: {card.suite}.{axis} cannot apply")
    reading.sized(student, Framing.of(card.axes))  # Refused before any data set is opened.
    others = tuple(name for name in needs.features if not parts or name != "pooled")
    return needs._replace(features=(*parts, *others)), parts


def over_sets(suite: object) -> OverSets | None:
    """The suite, when it brings data sets of its own."""
    return suite if isinstance(suite, OverSets) else None


def is_made(suite: object, spec: str) -> bool:
    """Whether the suite makes that data set itself: no archive is missing then, and a record without it says nothing.

    A suite over sets of its own says so by a method ``makes(spec)``.
    """
    makes = getattr(suite, "makes", None)
    return makes is not None and bool(makes(spec))


def _plain(spec: str) -> str:
    """A SPEC as a part of file names; a path in it as the digest of what it says."""
    name = re.sub(r"[^A-Za-z0-9._,=@-]", "-", spec)
    if name.replace("-", ":", 1) == spec or name == spec:
        return name[:150]
    return f"{name.partition(',')[0][:40]}-{digest_of(spec)[:12]}"
