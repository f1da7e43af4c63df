"""Refusals of options that a scheme has no use for."""

from __future__ import annotations

from bench.errors import BenchError


def refuse(scheme: str, **options: str | None) -> None:
    """Raise `BenchError` for the first of ``options`` (``arch``, ``weights_key``) that was given."""
    for name, value in options.items():
        if value is not None:
            flag = f"--{name.replace('_', '-')}"
            raise BenchError(f"{flag} {value} makes no sense with {scheme}: models, which know their own; leave it out")
