"""The names nearest to one that does not exist, among over a thousand that are put together from parts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

# What papers and hubs call families and sizes, in the parts that timm's names have.
_SHORT = {
    "rn": "resnet",
    "r": "resnet",
    "wrn": "wide resnet",
    "vits": "vit small",
    "vitb": "vit base",
    "vitl": "vit large",
    "vith": "vit huge",
    "vitg": "vit giant",
    "effnet": "efficientnet",
    "s": "small",
    "b": "base",
    "l": "large",
}


def nearest(name: str, names: Sequence[str], n: int = 3) -> str:
    """The tail of a refusal: the ``n`` of ``names`` that share most parts and letters with ``name``."""
    own = _parts(name)

    def score(other: str) -> float:
        parts = _parts(other)
        shared = 2 * len(own & parts) / max(len(own) + len(parts), 1)
        return shared + difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio()

    found = sorted(names, key=lambda other: (-score(other), len(other), other))[:n]
    return f"; nearest: {', '.join(found)}" if found else ""


def _parts(name: str) -> set[str]:
    words = re.findall(r"[a-z]+|\d+", name[:200].lower())
    return {part for word in words for part in _SHORT.get(word, word).split()}
