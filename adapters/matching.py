"""Which weight set of a file fills which architecture: chosen by rule, by ``--arch`` and by ``--weights-key``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adapters import shaped, sketch, telltales
from adapters.adapting import adapted
from adapters.architecture import Architecture, Outline
from adapters.dialects import readings
from adapters.fitting import Fit, fit, prefixes
from adapters.layout import PLAIN, Layout
from adapters.weightsets import WeightSet, answers, label, preference, shortened
from bench.errors import BenchError

Shapes = Mapping[str, Sequence[int]]

# Where several architectures have equal tensors and compute different things, these are what the tensors plainly mean.
_PLAIN = re.compile(
    r"(?x)(?:resnet\d+|wide_resnet\d+_2|resnext\d+_32x\dd|densenet\d+|vgg\d+(?:_bn)?|regnet[xy]_\d+"
    r"|vit_\w+_patch\d+_\d+|vit_\w+_patch14(?:_reg4)?_dinov2|swin_\w+_window\d+_\d+|convnext(?:v2)?_[a-z]+"
    r"|beit_\w+_patch\d+_\d+|mobilenetv2_\d+|mvitv2_[a-z]+|cifar_\w+|wrn_\d+_\d+|resnet\d+_small)"
)
_LIKELY = 0.35
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


class _Reading(NamedTuple):
    """A weight set in one dialect."""

    key: str
    dialect: str
    tensors: Mapping[str, Tensor]
    shapes: dict[str, tuple[int, ...]]


class _Try(NamedTuple):
    reading: _Reading
    architecture: Architecture
    fit: Fit
    layout: Layout

    @property
    def label(self) -> str:
        return label(self.reading.key, self.fit.prefix)

    @property
    def rank(self) -> int:
        """How much the method's evaluation means this weight set, best first."""
        pattern = self.layout.weights
        return -1 if pattern is not None and re.fullmatch(pattern, self.label) else preference(self.label)

    @property
    def order(self) -> tuple[bool, int, float, int, bool, int]:
        """Complete before incomplete; then the weights that the method evaluates; then the better fit.

        Of equal fits the one that also finds a classifier.
        """
        incomplete, share, left = self.fit.badness
        rank = self.rank
        unusual = _PLAIN.fullmatch(self.architecture.name) is None
        more = -len(self.fit.mapped)
        if incomplete:
            return incomplete, 0, share, rank, unusual, more
        return incomplete, rank, share, left, unusual, more


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
            _Reading(weights.key, dialect, tensors, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
            for weights in sets
            for dialect, tensors in readings(weights.tensors)
        ]
    except BenchError as error:
        raise BenchError(f"{file}: {error}") from None
    tries = _with(read, Architecture.parse(arch), layout) if arch is not None else _inferred(read, layout)
    complete = [t for t in tries if t.fit.complete]
    asked = [t for t in complete if weights_key is None or answers(t.label, weights_key)]
    # A whole label means that set alone, even where others lie inside it.
    asked = [t for t in asked if t.label == weights_key] or asked
    if weights_key is not None and not asked:
        _refuse_key(file, weights_key, sets, tries, complete)
    if not asked:
        raise BenchError(_misfit(file, sets, read, tries, arch, layout))
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


def _with(read: list[_Reading], architecture: Architecture, layout: Layout) -> list[_Try]:
    """Every reading and prefix against one architecture."""
    tries = []
    for reading in read:
        for prefix in prefixes(reading.shapes, architecture.outline().needed) or [""]:
            tries.append(_try(reading, prefix, architecture, layout))
    return tries


def _inferred(read: list[_Reading], layout: Layout, *, likely: float = _LIKELY, n: int = 8) -> list[_Try]:
    """Every reading and prefix against the architectures that its names and shapes resemble, then against their own."""
    tries = []
    unnamed = []
    for reading in read:
        for prefix in _common_prefixes(reading.shapes):
            inside = {key[len(prefix) :]: shape for key, shape in reading.shapes.items() if key.startswith(prefix)}
            likeliest = sketch.nearest(inside, 64 if layout.architectures else n)
            if layout.architectures:
                likeliest = [pair for pair in likeliest if re.fullmatch(layout.architectures, pair[0])][:n]
            for name, score in likeliest:
                if score < likely:
                    break
                tries.append(_try(reading, prefix, Architecture(name), layout))
            if (own := shaped.transformer(reading.shapes, prefix)) is not None:
                stated = layout.arguments(own.name).get("num_heads")
                unnamed.append((reading, prefix, own.with_arguments(num_heads=stated) if stated else own))
    if not any(t.fit.complete for t in tries):
        found = [_try(reading, prefix, own, layout) for reading, prefix, own in unnamed]
        tries += [t for t in found if t.fit.complete]
    return tries


def _try(reading: _Reading, prefix: str, architecture: Architecture, layout: Layout) -> _Try:
    own = adapted(architecture, reading.shapes, prefix, layout)
    return _Try(reading, own, fit(reading.shapes, own.outline(), prefix), layout)


def _common_prefixes(shapes: Shapes) -> list[str]:
    """Prefixes that at least a tenth of the names have, the empty one first."""
    counts: Counter[str] = Counter({"": len(shapes)})
    for key in shapes:
        parts = key.split(".")
        for depth in range(1, min(len(parts), 7)):
            counts[".".join(parts[:depth]) + "."] += 1
    least = max(0.1 * len(shapes), 4)
    return [prefix for prefix, count in counts.items() if count >= least]


def _refuse_substitute(file: str, best: _Try, tries: list[_Try], complete: list[_Try]) -> None:
    """Refuse to take a student, say, because the teacher that the method evaluates is damaged."""
    whole = {t.label for t in complete}
    for attempt in tries:
        found = attempt.fit
        partly = found.filled >= _PARTLY * found.needed and attempt.architecture.name == best.architecture.name
        if partly and attempt.rank < best.rank and attempt.label not in whole:
            raise BenchError(
                f"{file}: '{attempt.label}', which should be evaluated, {_shortfall(attempt)}; "
                f"--weights-key {best.label} takes the others, which are whole"
            )


def _refuse_ambiguity(file: str, best: _Try, asked: Iterable[_Try]) -> None:
    """Architectures of equal tensors that compute different things are the user's to tell apart."""
    if _PLAIN.fullmatch(best.architecture.name):
        return
    others = [a for a in _equals(best, asked) if a.behaviour() != best.architecture.behaviour()]
    if others:
        names = ", ".join([best.architecture.name, *(other.name for other in others)])
        raise BenchError(f"{file}: its tensors fit several architectures ({names}): say which with --arch")


def _equals(best: _Try, asked: Iterable[_Try]) -> list[Architecture]:
    """Other architectures that the same tensors fill."""
    same = [t for t in asked if t.label == best.label and t.architecture.name != best.architecture.name]
    return list(dict.fromkeys(t.architecture for t in same))


def _refuse_equals(file: str, best: _Try, asked: Iterable[_Try]) -> None:
    """Several networks in a file, none of which a method's evaluation prefers, are the user's to tell apart."""
    rivals = [t for t in asked if t.label != best.label and t.rank == best.rank]
    same = {t.label for t in rivals if _same_tensors(t, best)}
    if others := dict.fromkeys(t.label for t in rivals if t.label not in same):
        keys = shortened([best.label, *others])
        raise BenchError(
            f"{file} holds {len(keys)} different networks and nothing says which is meant: choose with --weights-key "
            f"{' or '.join(keys[:6])}"
        )


def _same_tensors(one: _Try, other: _Try) -> bool:
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


def _notes(best: _Try, arch: str | None) -> list[str]:
    stated = "num_heads" in best.layout.arguments(best.architecture.name)
    if arch is not None or stated or not shaped.assumes_heads(best.architecture):
        return []
    heads = dict(best.architecture.arguments)["num_heads"]
    return [f"{heads} heads, of 64, are assumed: shapes do not tell (--arch with num_heads=...)"]


def _spelled(label: str) -> str:
    return label or ". (its top level)"


def _refuse_key(file: str, weights_key: str, sets: list[WeightSet], tries: list[_Try], complete: list[_Try]) -> None:
    """Refuse a ``--weights-key`` that names nothing, or names weights that do not fill the architecture."""
    named = [t for t in tries if answers(t.label, weights_key)]
    whole = ", ".join(dict.fromkeys(_spelled(t.label) for t in complete))
    there = f"; it has {whole}" if whole else f"; it holds {', '.join(_spelled(s.key) for s in sets[:6])}"
    if not named:
        raise BenchError(f"{file} has no weight set '{weights_key}' that fills a known architecture{there}")
    worst = min(named, key=lambda t: t.fit.badness)
    raise BenchError(f"{file}: the weights '{weights_key}' {_shortfall(worst)}{there}")


def _misfit(
    file: str, sets: list[WeightSet], read: list[_Reading], tries: list[_Try], arch: str | None, layout: Layout
) -> str:
    """The sentence for weights that fill nothing: counts, first names, and what would fit better."""
    if hollow := {name: kind for weights in sets for name, kind in weights.hollow.items()}:
        kinds = " and ".join(dict.fromkeys(hollow.values()))
        return (
            f"{file}: {len(hollow)} of its tensors are {kinds} ({_few(list(hollow))}), without the values that a "
            f"network computes with: save them dense and unquantised"
        )
    guesses = _inferred(read, layout, likely=0.1, n=6) if arch is not None else tries
    best = min(tries, key=lambda t: t.order) if tries else None
    if best is None or (arch is None and best.fit.filled < 0.5 * best.fit.needed):
        every = [name for weights in sets for name in weights.tensors]
        if what := telltales.alone(every):
            return f"{file} {what}"
        largest = max(sets, key=lambda s: len(s.tensors))
        names = ", ".join(list(largest.tensors)[:4])
        where = f"'{largest.key}'" if largest.key else "its top level"
        remedy = telltales.among(every) or "name it with --arch"
        return (
            f"{file}: no known architecture has tensors like those in {where} ({len(largest.tensors)} of them: "
            f"{names}, ...): {remedy}"
        )
    label = f" '{best.label}'" if best.label else ""
    sentence = f"{file}: the weights{label} {_shortfall(best)}"
    better = sorted((t for t in guesses if t.fit.badness < best.fit.badness), key=lambda t: t.order)
    if better:
        found = better[0]
        share = "fits completely" if found.fit.complete else f"fits {found.fit.filled} of {found.fit.needed}"
        # Arguments that a file's shapes settle need not be given; those of a transformer without a name do.
        unnamed = "embed_dim" in dict(found.architecture.arguments)
        wanted = f"'{found.architecture}'" if unnamed else found.architecture.name
        return f"{sentence}; {found.architecture} {share}: use --arch {wanted}"
    if best.fit.wrong and all(0 in theirs for _, theirs, _ in best.fit.wrong):
        return (
            f"{sentence}; empty tensors are what DeepSpeed's ZeRO leaves at stage 3: put the parts together with "
            f"zero_to_fp32.py"
        )
    if told := telltales.among([*best.fit.structural, *best.fit.unused]):
        return f"{sentence}; {told}"
    if best.fit.missing and (elsewhere := _elsewhere(best)) is not None:
        return f"{sentence}; the missing ones lie {elsewhere}: one network under two prefixes, save it under one"
    if not best.fit.wrong and not best.fit.structural and best.fit.missing and best.fit.filled:
        blocks = {name.split(".")[1] for name in best.fit.mapped if name.startswith("blocks.")}
        other = f", such as {best.architecture.name}(depth={len(blocks)})" if _block_missing(best) else ""
        return f"{sentence}; the file is incomplete, or of another architecture: name that with --arch{other}"
    return f"{sentence}; name another architecture with --arch, or other weights with --weights-key"


def _elsewhere(attempt: _Try) -> str | None:
    """The one other prefix under which all that is missing lies, if there is one."""
    own, shapes, missing = attempt.fit.prefix, attempt.reading.shapes, attempt.fit.missing
    ends = [key.removesuffix(missing[0]) for key in shapes if key.endswith(missing[0])]
    for prefix in (one for one in ends if one != own and (not one or one.endswith("."))):
        if all(prefix + name in shapes for name in missing):
            return f"under '{prefix}'" if prefix else "under no prefix"
    return None


def _block_missing(attempt: _Try) -> bool:
    """Whether all that is missing lies in a transformer's last blocks."""
    there = {name.split(".")[1] for name in attempt.fit.mapped if name.startswith("blocks.")}
    lost = {name.split(".")[1] if name.startswith("blocks.") else "" for name in attempt.fit.missing}
    numbers = there == {str(index) for index in range(len(there))}
    return bool(there) and "" not in lost and not lost & there and numbers


def _shortfall(attempt: _Try) -> str:
    found, name = attempt.fit, attempt.architecture
    words = [f"fill {found.filled} of {found.needed} tensors of {name}"]
    if found.missing:
        words.append(f"missing {_few(found.missing)}")
    if found.wrong:
        first, theirs, ours = found.wrong[0]
        more = f" and {len(found.wrong) - 1} more" if len(found.wrong) > 1 else ""
        words.append(f"wrong shape {first} (file {_dims(theirs)}, network {_dims(ours)}){more}")
    if found.structural:
        words.append(f"without a place in it {_few(found.structural)}")
    elif found.too_much_unknown:
        words.append(f"too large unknown parts {_few(found.unused)}")
    return ", ".join(words)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _dims(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
