"""Which weight set of a file fills which architecture: chosen by rule, by ``--arch`` and by ``--weights-key``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from adapters import misfit, shaped, windowed
from adapters.architecture import Architecture, Outline
from adapters.attempts import PLAIN_NAMES, Attempt, Reading, given, inferred
from adapters.dialects import readings
from adapters.fitting import Fit
from adapters.layout import PLAIN, Layout
from adapters.weightsets import WeightSet, answers, shortened
from bench.errors import BenchError

# From this share of filled tensors on, a weight set is a damaged network and not another thing.
_PARTLY = 0.3


class Match(NamedTuple):
    """A weight set that fills an architecture."""

    tensors: Mapping[str, Tensor]
    architecture: Architecture
    outline: Outline
    fit: Fit
    key: str
    """The way to the weight set inside the container."""
    label: str
    layout: Layout
    spoken: str
    """Layout, dialect and prefix in words."""
    inferred: bool
    """Whether the architecture was found from names and shapes."""
    whole: list[str]
    """Labels of the weight sets that fill an architecture, this one first."""
    notes: list[str]


def match(
    sets: list[WeightSet], *, arch: str | None, weights_key: str | None, file: str, layout: Layout = PLAIN
) -> Match:
    """The weight set and architecture to use. Raises `BenchError` saying what does not fit and what settles it."""
    if not sets:
        raise BenchError(
            f"{file} holds no weights (no named tensors, optimiser state left aside): give the file with the model's "
            f"state_dict"
        )
    try:
        read = [
            Reading(weights.key, dialect, tensors, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
            for weights in sets
            for dialect, tensors in readings(weights.tensors)
        ]
    except BenchError as error:
        raise BenchError(f"{file}: {error}") from None
    tries = given(read, Architecture.parse(arch), layout) if arch is not None else inferred(read, layout)
    complete = [t for t in tries if t.fit.complete]
    asked = [t for t in complete if weights_key is None or answers(t.label, weights_key)]
    # A whole label means that set alone, even where others lie inside it.
    asked = [t for t in asked if t.label == weights_key] or asked
    if weights_key is not None and not asked:
        _refuse_key(file, weights_key, sets, tries, complete)
    if not asked:
        raise BenchError(misfit.sentence(file, sets, read, tries, arch, layout))
    best = min(asked, key=lambda t: t.order)
    if weights_key is None:
        _refuse_substitute(file, best, tries, complete)
        _refuse_equals(file, best, asked)
    if arch is None:
        _refuse_ambiguity(file, best, asked)
    dialect = best.reading.dialect
    words = [layout.name, f"{dialect} names" if dialect and dialect not in layout.name else ""]
    words.append(f"prefix {best.fit.prefix}" if best.fit.prefix else "no prefix")
    return Match(
        best.reading.tensors,
        best.architecture,
        best.architecture.outline(),
        best.fit,
        best.reading.key,
        best.label,
        layout,
        ", ".join(word for word in words if word),
        arch is None,
        list(dict.fromkeys([best.label, *(t.label for t in complete)])),
        _notes(best, arch),
    )


def _refuse_substitute(file: str, best: Attempt, tries: list[Attempt], complete: list[Attempt]) -> None:
    """Refuse to take a student, say, because the teacher that the method evaluates is damaged."""
    whole = {t.label for t in complete}
    for attempt in tries:
        found = attempt.fit
        partly = found.filled >= _PARTLY * found.needed and attempt.architecture.name == best.architecture.name
        if partly and attempt.rank < best.rank and attempt.label not in whole:
            raise BenchError(
                f"{file}: '{attempt.label}', which should be evaluated, {misfit.shortfall(attempt)}; "
                f"--weights-key {best.label} takes the others, which are whole"
            )


def _refuse_ambiguity(file: str, best: Attempt, asked: Iterable[Attempt]) -> None:
    """Architectures of equal tensors that compute different things are the user's to tell apart."""
    if PLAIN_NAMES.fullmatch(best.architecture.name):
        return
    others = [a for a in _equals(best, asked) if a.behaviour() != best.architecture.behaviour()]
    if others:
        names = ", ".join([best.architecture.name, *(other.name for other in others)])
        raise BenchError(f"{file}: its tensors fit several architectures ({names}): say which with --arch")


def _equals(best: Attempt, asked: Iterable[Attempt]) -> list[Architecture]:
    """Other architectures that the same tensors fill."""
    same = [t for t in asked if t.label == best.label and t.architecture.name != best.architecture.name]
    return list(dict.fromkeys(t.architecture for t in same))


def _refuse_equals(file: str, best: Attempt, asked: Iterable[Attempt]) -> None:
    """Several networks in a file, none of which a method's evaluation prefers, are the user's to tell apart."""
    rivals = [t for t in asked if t.label != best.label and t.rank == best.rank]
    same = {t.label for t in rivals if _same_tensors(t, best)}
    if others := dict.fromkeys(t.label for t in rivals if t.label not in same):
        keys = shortened([best.label, *others])
        raise BenchError(
            f"{file} holds {len(keys)} different networks and nothing says which is meant: choose with --weights-key "
            f"{' or '.join(keys[:6])}"
        )


def _same_tensors(one: Attempt, other: Attempt) -> bool:
    """Whether two weight sets are one under two names."""
    if one.architecture.name != other.architecture.name:
        return False
    shared = [name for name in one.fit.mapped if name in other.fit.mapped]
    return all(
        mine is yours or torch.equal(mine, yours)
        for mine, yours in (
            (one.reading.tensors[one.fit.mapped[n]], other.reading.tensors[other.fit.mapped[n]]) for n in shared
        )
    )


def _notes(best: Attempt, arch: str | None) -> list[str]:
    arguments, stated = dict(best.architecture.arguments), best.layout.arguments(best.architecture.name)
    if arch is not None or "embed_dim" not in arguments:
        return []
    if windowed.version(best.architecture.name) is not None:
        size = arguments.get("img_size", 224)
        note = f"input of {size} pixels assumed, as where the last stage is one window (--arch with img_size=...)"
        return [] if "img_size" in stated else [note]
    if "num_heads" in stated or not shaped.assumes_heads(best.architecture):
        return []
    return [f"{arguments['num_heads']} heads, of 64, are assumed: shapes do not tell (--arch with num_heads=...)"]


def _spelled(label: str) -> str:
    return label or ". (its top level)"


def _refuse_key(
    file: str, weights_key: str, sets: list[WeightSet], tries: list[Attempt], complete: list[Attempt]
) -> None:
    """Refuse a ``--weights-key`` that names nothing, or names weights that do not fill the architecture."""
    named = [t for t in tries if answers(t.label, weights_key)]
    whole = ", ".join(dict.fromkeys(_spelled(t.label) for t in complete))
    there = f"; it has {whole}" if whole else f"; it holds {', '.join(_spelled(s.key) for s in sets[:6])}"
    if not named:
        raise BenchError(f"{file} has no weight set '{weights_key}' that fills a known architecture{there}")
    worst = min(named, key=lambda t: t.fit.badness)
    raise BenchError(f"{file}: the weights '{weights_key}' {misfit.shortfall(worst)}{there}")
