"""Law 1: does a weight set fill an architecture, under which prefix, and what is left over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from adapters.architecture import Outline
from adapters.heads import grouped, is_head, is_head_anywhere

Shapes = Mapping[str, Sequence[int]]

# Without meaning for a frozen network, wherever they lie.
_INERT = frozenset(
    (
        "num_batches_tracked", "total_ops", "total_params", "relative_position_index", "relative_coords_table",
        "attn_mask", "position_ids",
    )
)  # fmt: skip
# Beside the backbone proper, an unknown part may be this large a share of it before the architecture is in doubt.
_UNKNOWN_SHARE = 0.2


class Fit(NamedTuple):
    """How a weight set fills an architecture under one prefix."""

    prefix: str
    mapped: dict[str, str]
    """Name in the network -> name in the weight set, shapes equal."""
    missing: list[str]
    """Needed tensors that the weight set does not have."""
    wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]]
    """(name in the network, shape in the file, shape in the network) where names meet and shapes do not."""
    structural: list[str]
    """Left-over names inside parts that the network has, or bare tensors: another architecture's."""
    heads: list[str]
    unused: list[str]
    needed: int
    size: int
    """Elements of the tensors that were filled."""
    doubt: int
    """Elements of unknown parts under the same prefix."""

    @property
    def complete(self) -> bool:
        return not self.missing and not self.wrong and not self.structural and not self.too_much_unknown

    @property
    def too_much_unknown(self) -> bool:
        return self.doubt > _UNKNOWN_SHARE * max(self.size, 1)

    @property
    def filled(self) -> int:
        return self.needed - len(self.missing) - len(self.wrong)

    @property
    def badness(self) -> tuple[bool, float, int]:
        """Order of fits: complete ones first, then by the share of needed tensors filled, then by what is left."""
        return (not self.complete, -self.filled / max(self.needed, 1), len(self.structural))


def prefixes(shapes: Shapes, names: Mapping[str, object], *, least: float = 0.3) -> list[str]:
    """Prefixes under which at least a share ``least`` of the best one's ``names`` appear in ``shapes``, best first."""
    votes: Counter[str] = Counter()
    for key in shapes:
        start = 0
        while start >= 0:
            if key[start:] in names:
                votes[key[:start]] += 1
            dot = key.find(".", start)
            start = dot + 1 if dot >= 0 else -1
    if not votes:
        return []
    best = votes.most_common(1)[0][1]
    return [prefix for prefix, count in votes.most_common() if count >= max(least * best, 2)]


def fit(shapes: Shapes, outline: Outline, prefix: str) -> Fit:
    """Fill ``outline`` from the names under ``prefix``. Other prefixes' names are left over as ``unused``."""
    mapped: dict[str, str] = {}
    missing: list[str] = []
    wrong: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = []
    size = 0
    for name, shape in outline.everything.items():
        key = prefix + name
        if key not in shapes:
            if name in outline.needed:
                missing.append(name)
        elif tuple(shapes[key]) == tuple(shape):
            mapped[name] = key
            size += _elements(shape) if name in outline.needed else 0
        elif name in outline.needed:
            wrong.append((name, tuple(shapes[key]), tuple(shape)))
    taken = {*mapped.values(), *(prefix + name for name, _, _ in wrong)}
    classifier = tuple(f"{name}." for name in outline.classifier)
    parts = {name.partition(".")[0] for name in outline.needed if "." in name}
    structural: list[str] = []
    heads: list[str] = []
    unused: list[str] = []
    doubt = 0
    for key in shapes:
        if key in taken or key.rpartition(".")[2] in _INERT:
            continue
        name = key[len(prefix) :]
        if not key.startswith(prefix):
            (heads if is_head(_beyond(key, prefix)) else unused).append(key)
        elif name.startswith(classifier) or (is_head(name) and name.partition(".")[0] not in parts):
            heads.append(key)
        elif name.partition(".")[0] in parts or "." not in name:
            structural.append(key)
        elif is_head_anywhere(name):
            heads.append(key)
        else:
            unused.append(key)
            if prefix:
                doubt += _elements(shapes[key])
    if not prefix:
        # At the top level another network's parts (a student beside its teacher) are no sign against this one only
        # when they lie in a part of their own that is as large as a network.
        doubt = sum(_elements(shapes[key]) for key in unused if key.partition(".")[0] not in _networks(unused, shapes))
    return Fit(
        prefix,
        mapped,
        missing,
        wrong,
        structural,
        grouped(heads, prefix),
        grouped(unused, prefix),
        len(outline.needed),
        size,
        doubt,
    )


def best_fit(shapes: Shapes, outline: Outline) -> Fit:
    """The best fit over all prefixes; with no name in common, the empty one."""
    return min((fit(shapes, outline, p) for p in prefixes(shapes, outline.needed) or [""]), key=lambda f: f.badness)


def _beyond(key: str, prefix: str) -> str:
    """``key`` from where it leaves ``prefix``."""
    own, parts = prefix.split("."), key.split(".")
    depth = 0
    while depth < min(len(own), len(parts) - 1) and own[depth] == parts[depth]:
        depth += 1
    return ".".join(parts[depth:])


def _networks(keys: Sequence[str], shapes: Shapes) -> set[str]:
    counts = Counter(key.partition(".")[0] for key in keys)
    return {part for part, count in counts.items() if count >= 50}


def _elements(shape: Sequence[int]) -> int:
    product = 1
    for length in shape:
        product *= int(length)
    return product
