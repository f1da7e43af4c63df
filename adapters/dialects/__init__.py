"""Dialects: how official code names the tensors of networks that timm has under other names.

A dialect is a table: a pattern that shows it, and renaming rules. `readings` gives a weight set in every dialect that
its names show, so that the rest of the way knows timm's names alone. One more dialect is one more row in ``official``,
``huggingface`` or ``jax``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from adapters.dialects.dialect import Dialect, translate
from adapters.dialects.huggingface import HUGGING_FACE
from adapters.dialects.jax import JAX
from adapters.dialects.official import OFFICIAL

DIALECTS = (*OFFICIAL, *HUGGING_FACE, *JAX)

__all__ = ["DIALECTS", "Dialect", "readings", "translate"]


def readings(tensors: Mapping[str, Tensor]) -> list[tuple[str, Mapping[str, Tensor]]]:
    """(dialect's name, tensors under timm's names) for the names as they are (``""``) and each dialect they show."""
    found: list[tuple[str, Mapping[str, Tensor]]] = [("", tensors)]
    for dialect in DIALECTS:
        prefixes = dict.fromkeys(match[1] for name in tensors if (match := dialect.shown.fullmatch(name)))
        if prefixes:
            found.append((dialect.name, translate(dialect, tensors, list(prefixes))))
    return found
