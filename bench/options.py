"""Values of ``--set suite.option=value``: read by the default's type, spelled into a variant's name."""

from __future__ import annotations

from typing import Any

from bench.errors import BenchError


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


def _bool(raw: Any, option: str) -> bool:
    text = str(raw).lower()
    if text in {"true", "yes", "1", "on"}:
        return True
    if text in {"false", "no", "0", "off"}:
        return False
    raise BenchError(f"option {option} takes true or false, not '{raw}'")


def _number(raw: Any, kind: type[int] | type[float], option: str) -> int | float:
    try:
        value = kind(raw) if not isinstance(raw, str) or kind is float else int(raw)
    except (TypeError, ValueError):
        word = "a whole number" if kind is int else "a number"
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
