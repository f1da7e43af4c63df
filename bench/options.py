"""Values of ``--set suite.option=value``: read by the default's type, held to what the suite allows, spelled into a
variant's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError


@dataclass(frozen=True)
class Allowed:
    """What an option may be, beyond the type of its default: a row of a suite's ``options``.

    Of a list every element is held to it. None is left to the type: only a default of None accepts it.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    among: tuple[str, ...] = ()
    """The words to choose from; then no range applies."""
    a_set: bool = False
    """A list whose order and repeats mean nothing: kept sorted, each value once, so that it has one name."""
    once: bool = False
    """A list whose repeats alone mean nothing."""

    def checked(self, value: Any, *, like: Any, option: str) -> Any:
        """``value``, a set in its order; ``like`` is the default.

        Raises `BenchError`, one sentence with the range, for a value that is not allowed.

        A word where a number or nothing is expected, and true or false, are refused like a number out of range.
        """
        if isinstance(value, list) and isinstance(like, list):
            items = [self.checked(item, like=None, option=option) for item in value]
            if self.a_set:
                items.sort(key=lambda item: (isinstance(item, str), item))
            return list(dict.fromkeys(items)) if self.a_set or self.once else items
        if value is None or (not self.among and not self._ranged):
            return value
        if isinstance(value, list):
            raise BenchError(f"option {option} takes one value, not the list '{spell(value)}'")
        if self.among:
            if value not in self.among:
                raise BenchError(f"option {option} is {_either(self.among)}, not '{value}'")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not self._inside(value):
            raise BenchError(f"option {option} is a number {self._range()}, not '{value}'")
        return value

    @property
    def _ranged(self) -> bool:
        return any(bound is not None for bound in (self.least, self.above, self.most, self.below))

    def _inside(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )

    def _range(self) -> str:
        bounds = (("of at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below))
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)


def count(least: int = 1, most: int = 10**9, *, a_set: bool = False) -> Allowed:
    """A number of things."""
    return Allowed(least=least, most=most, a_set=a_set)


def positive(most: float = 1e100, *, a_set: bool = False) -> Allowed:
    """A number above 0: a penalty, a rate, a tolerance, a temperature."""
    return Allowed(above=0, most=most, a_set=a_set)


SHARE = Allowed(above=0, below=1)
"""A part of a whole, neither nothing nor all of it."""
EXPONENT = Allowed(least=-100, most=100)
"""A power of ten: the ends of a logarithmic grid."""


def words(*among: str, once: bool = False) -> Allowed:
    """One of some words."""
    return Allowed(among=among, once=once)


def coerce(raw: Any, *, like: Any, option: str) -> Any:
    """``raw`` (text from the command line, or a Python value) as the type of the default ``like``.

    A default of None accepts a number, a word or a list. Lists are written ``10,20`` (a single value is a list of one).
    """
    if isinstance(raw, tuple):
        raw = list(raw)
    if isinstance(like, list):
        items = raw if isinstance(raw, list) else [v for v in str(raw).split(",") if v != ""]
        if not items:
            raise BenchError(f"option {option} needs at least one value")
        element = like[0] if like else None
        return [coerce(item, like=element, option=option) for item in items]
    if isinstance(raw, list):
        if like is None:
            return raw
        raise BenchError(f"option {option} takes one value, not a list")
    if isinstance(like, bool):
        return _bool(raw, option)
    if like is None:
        return _guess(raw, option)
    if isinstance(like, int):
        return _number(raw, int, option)
    if isinstance(like, float):
        return _number(raw, float, option)
    return str(raw)


def spell(value: Any) -> str:
    """The shortest text that reads back as ``value``: used in a variant's id, so two values never share one."""
    if isinstance(value, list):
        return ",".join(spell(v) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    # 1 and 1.0 are one setting and must not get two names.
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _either(choices: tuple[str, ...]) -> str:
    return " or ".join([", ".join(choices[:-1]), choices[-1]] if len(choices) > 1 else choices)


def _bool(raw: Any, option: str) -> bool:
    text = str(raw).lower()
    if text in {"true", "yes", "1", "on"}:
        return True
    if text in {"false", "no", "0", "off"}:
        return False
    raise BenchError(f"option {option} takes true or false, not '{raw}'")


def _number(raw: Any, kind: type[int] | type[float], option: str) -> int | float:
    word = "a whole number" if kind is int else "a number"
    if isinstance(raw, bool):
        raise BenchError(f"option {option} takes {word}, not '{raw}'")
    try:
        value = kind(raw)
    except (TypeError, ValueError, OverflowError):
        raise BenchError(f"option {option} takes {word}, not '{raw}'") from None
    if isinstance(raw, float) and kind is int and raw != value:
        raise BenchError(f"option {option} takes a whole number, not '{raw}'")
    if value != value or value in (float("inf"), float("-inf")):
        raise BenchError(f"option {option} takes a finite number, not '{raw}'")
    return value


def _guess(raw: Any, option: str) -> Any:
    if not isinstance(raw, str):
        return raw
    if raw.lower() in {"none", "null", ""}:
        return None
    if "," in raw:
        return [_guess(v, option) for v in raw.split(",") if v]
    try:
        return int(raw)
    except ValueError:
        pass
    try:
        float(raw)
    except ValueError:
        return raw
    return _number(raw, float, option)
