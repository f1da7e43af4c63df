"""How much may be lost before the gate says so: gate.toml, its defaults from the published noise of each protocol."""

from __future__ import annotations

import math
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bench.errors import BenchError
from bench.files import regular
from bench.record import Measurement
from bench.registry import nearest, table

FILE = "gate.toml"
LARGEST = 2**20
"""Bytes of a gate.toml."""
TWO_ERRORS = "2se"
_SHARE = re.compile(r"\d{1,3}(\.\d{1,6})?%")


class Training(BaseModel):
    model_config = ConfigDict(extra="forbid")

    minimum_runs: int = Field(default=3, ge=2)
    seed_deviation: dict[str, float] = Field(default_factory=dict)

    @field_validator("seed_deviation")
    @classmethod
    def _positive(cls, table: dict[str, float]) -> dict[str, float]:
        for name, value in table.items():
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"the deviation of {name!r} must be a positive number")
        return table


class Tolerances(BaseModel):
    """A gate.toml."""

    model_config = ConfigDict(extra="forbid")

    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    engine_versions: Literal["same", "any"] = "same"
    tolerance: dict[str, float | str] = Field(default_factory=dict)
    training: Training = Field(default_factory=Training)

    @field_validator("tolerance", mode="before")
    @classmethod
    def _no_truths(cls, table: Any) -> Any:
        if isinstance(table, dict) and (odd := [name for name, value in table.items() if isinstance(value, bool)]):
            raise ValueError(f'the tolerance of {odd[0]!r} is a number, "2se" or a share as "5%"')
        return table

    @field_validator("tolerance")
    @classmethod
    def _known(cls, table: dict[str, float | str]) -> dict[str, float | str]:
        for name, value in table.items():
            if isinstance(value, str):
                if value != TWO_ERRORS and not _SHARE.fullmatch(value):
                    raise ValueError(f'the tolerance of {name!r} is a number, "2se" or a share as "5%"')
            elif not math.isfinite(value) or value < 0:
                raise ValueError(f"the tolerance of {name!r} must be zero or more")
        return table

    def of(self, m: Measurement) -> float | None:
        """The largest loss of ``m`` that passes, in its unit; None when nothing says how much."""
        for name in names(m):
            if name in self.tolerance:
                if name == "default" and m.unit != "%":
                    return None
                found = self.tolerance[name]
                if not isinstance(found, str):
                    return found
                if found != TWO_ERRORS:
                    return float(found.rstrip("%")) / 100 * abs(m.value)
                p = min(max(m.value / 100, 0.0), 1.0)
                # At 0 and 100 % the formula gives no room at all; half a sample is the finest that n can show.
                return max(200 * math.sqrt(p * (1 - p) / m.n), 50 / m.n) if m.unit == "%" else None
        return None

    def seed_deviation(self, m: Measurement) -> float | None:
        """The declared standard deviation of ``m`` between trainings, in its unit."""
        return next((self.training.seed_deviation[n] for n in names(m) if n in self.training.seed_deviation), None)


def names(m: Measurement) -> list[str]:
    """Names under which gate.toml may speak of ``m``, the most specific first."""
    recipe = m.protocol.partition("+")[0].partition("@")[0]
    return [f"{recipe}.{m.metric}", recipe, f"{m.suite}.{m.metric}", m.suite, "default"]


def load(path: Path | str | None = None) -> Tolerances:
    """The defaults with ``path`` over them; without a path, with ``gate.toml`` of the working folder where it is.

    Raises `BenchError` for a file that is missing, no TOML, or says something unknown.
    """
    settings = tomllib.loads(files("reports").joinpath(FILE).read_text(encoding="utf-8"))
    chosen = Path(path) if path is not None else Path(FILE)
    if path is not None or chosen.is_file():
        try:
            if regular(chosen).st_size > LARGEST:
                raise BenchError(f"the gate's settings {chosen} have more than {LARGEST >> 10} KiB: no gate.toml has")
            said = tomllib.loads(chosen.read_text(encoding="utf-8"))
            _dotted(said, "tolerance")
            _dotted(said.get("training"), "seed_deviation")
            _check_names(chosen, said.get("tolerance"))
            training = said.get("training")
            _check_names(chosen, training.get("seed_deviation") if isinstance(training, dict) else None)
            _merge(settings, said)
        except OSError as error:
            raise BenchError(f"the gate's settings {chosen} cannot be read: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BenchError(f"the gate's settings {chosen} are not TOML: {error}") from None
    try:
        return Tolerances.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BenchError(
            f"the gate's settings {chosen} are wrong at {where}: {first['msg'].removeprefix('Value error, ')}"
        ) from None


def _dotted(tables: Any, name: str) -> None:
    """``quality.rankme = 5`` without quotes is a table in a table to TOML, and a name to whoever writes it."""
    if isinstance(tables, dict) and isinstance(table := tables.get(name), dict):
        tables[name] = {
            key: number
            for suite, value in table.items()
            for key, number in (
                {f"{suite}.{metric}": v for metric, v in value.items()} if isinstance(value, dict) else {suite: value}
            ).items()
        }


def _check_names(path: Path, named: Any) -> None:
    """Refuse a name that no suite has: its number would hold for nothing, and nobody would notice."""
    known = list(table("suites"))
    for name in named if isinstance(named, dict) else ():
        suite = re.split(r"[/.]", name, maxsplit=1)[0]
        if suite not in (*known, "default"):
            raise BenchError(
                f"the gate's settings {path} speak of '{name[:80]}': no suite is called "
                f"'{suite[:80]}'{nearest(suite, known)}"
            )


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
