"""Request: the arguments of one run, checked before anything heavy is loaded; a Record keeps it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bench import protocol as protocols
from bench.errors import BenchError
from bench.protocol import Protocol
from bench.registry import nearest, table


class Request(BaseModel):
    """What was asked: everything that a number may depend on, and nothing of where it is run or kept."""

    model_config = ConfigDict(extra="forbid")

    model: str
    """SPEC, or ``live`` for a module handed over in memory."""
    suites: list[str]
    teacher: str | None = None
    data: str | None = None
    arch: str | None = None
    weights_key: str | None = None
    protocols: dict[str, str] = Field(default_factory=dict)
    """Suite -> protocol name."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """``suite.option`` -> value."""
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    limit: int | None = Field(default=None, ge=1)
    name: str | None = None

    def cards(self) -> dict[str, Protocol]:
        """The protocol card of every suite, in the order asked, with the changed options applied.

        Raises `BenchError` for an unknown suite, protocol or option, and for an option of a suite that is not run.
        """
        known = list(table("suites"))
        if not self.suites:
            raise BenchError(f"no suite was asked for; there are: {', '.join(known)}")
        found: dict[str, Protocol] = {}
        for suite in self.suites:
            if suite not in known:
                raise BenchError(f"unknown suite '{suite}'{nearest(suite, known)}")
            card = protocols.get(suite, self.protocols.get(suite))
            changes = {key.partition(".")[2]: v for key, v in self.settings.items() if key.partition(".")[0] == suite}
            found[suite] = card.variant(changes).at_precision(self.precision)
        for key in [*self.protocols, *self.settings]:
            suite = key.partition(".")[0]
            if suite not in found:
                raise BenchError(f"'{key}' is set, but suite '{suite}' is not run (suites: {', '.join(found)})")
        return found


def parse_pairs(pairs: list[str], flag: str, shape: str) -> dict[str, str]:
    """``["a=b"]`` as a dictionary; a pair without ``=`` or a key given twice is refused."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key or (shape.startswith("suite.") and "." not in key):
            raise BenchError(f"{flag} takes {shape}, not '{pair}'")
        if key in found and found[key] != value:
            raise BenchError(f"{flag} gives '{key}' twice: {found[key]} and {value}")
        found[key] = value
    return found
