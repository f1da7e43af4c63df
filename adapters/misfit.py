"""The refusal of weights that fill no architecture: how far they came, what they are, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from adapters import telltales
from adapters.attempts import Attempt, Reading, inferred
from adapters.layout import Layout
from adapters.weightsets import WeightSet


def sentence(
    file: str, sets: list[WeightSet], read: list[Reading], tries: list[Attempt], arch: str | None, layout: Layout
) -> str:
    """For weights that fill nothing: counts, first names, and what would fit better."""
    if hollow := {name: kind for weights in sets for name, kind in weights.hollow.items()}:
        kinds = " and ".join(dict.fromkeys(hollow.values()))
        return (
            f"{file}: {len(hollow)} of its tensors are {kinds} ({_few(list(hollow))}), without the values that a "
            f"network computes with: save them dense and unquantised"
        )
    guesses = inferred(read, layout, likely=0.1, n=6) if arch is not None else tries
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
    said = f"{file}: the weights{label} {shortfall(best)}"
    better = sorted((t for t in guesses if t.fit.badness < best.fit.badness), key=lambda t: t.order)
    if better:
        found = better[0]
        share = "fits completely" if found.fit.complete else f"fits {found.fit.filled} of {found.fit.needed}"
        # Arguments that a file's shapes settle need not be given; those of a transformer without a name do.
        unnamed = "embed_dim" in dict(found.architecture.arguments)
        wanted = f"'{found.architecture}'" if unnamed else found.architecture.name
        return f"{said}; {found.architecture} {share}: use --arch {wanted}"
    if best.fit.wrong and all(0 in theirs for _, theirs, _ in best.fit.wrong):
        return (
            f"{said}; empty tensors are what DeepSpeed's ZeRO leaves at stage 3: put the parts together with "
            f"zero_to_fp32.py"
        )
    if told := telltales.among([*best.fit.structural, *best.fit.unused]):
        return f"{said}; {told}"
    if best.fit.missing and (elsewhere := _elsewhere(best)) is not None:
        return f"{said}; the missing ones lie {elsewhere}: one network under two prefixes, save it under one"
    if not best.fit.wrong and not best.fit.structural and best.fit.missing and best.fit.filled:
        blocks = {name.split(".")[1] for name in best.fit.mapped if name.startswith("blocks.")}
        other = f", such as {best.architecture.name}(depth={len(blocks)})" if _block_missing(best) else ""
        return f"{said}; the file is incomplete, or of another architecture: name that with --arch{other}"
    return f"{said}; name another architecture with --arch, or other weights with --weights-key"


def _elsewhere(attempt: Attempt) -> str | None:
    """The one other prefix under which all that is missing lies, if there is one."""
    own, shapes, missing = attempt.fit.prefix, attempt.reading.shapes, attempt.fit.missing
    ends = [key.removesuffix(missing[0]) for key in shapes if key.endswith(missing[0])]
    for prefix in (one for one in ends if one != own and (not one or one.endswith("."))):
        if all(prefix + name in shapes for name in missing):
            return f"under '{prefix}'" if prefix else "under no prefix"
    return None


def _block_missing(attempt: Attempt) -> bool:
    """Whether all that is missing lies in a transformer's last blocks."""
    there = {name.split(".")[1] for name in attempt.fit.mapped if name.startswith("blocks.")}
    lost = {name.split(".")[1] if name.startswith("blocks.") else "" for name in attempt.fit.missing}
    numbers = there == {str(index) for index in range(len(there))}
    return bool(there) and "" not in lost and not lost & there and numbers


def shortfall(attempt: Attempt) -> str:
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
