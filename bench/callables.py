"""The name of a function that a record can hold: the same for the same function, on every machine and in every run."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
LONGEST = 200


def name_of(function: Callable[..., Any]) -> str:
    """``module.qualified_name`` of a named function; what tells others apart is added as a digest.

    A lambda or a function inside another shares its name with its neighbours, so what it does (its code, its defaults
    and what it closes over) is digested into eight hexadecimal digits; a `functools.partial` is named with its
    arguments; another object by its text, without the memory address that Python writes there.
    """
    if isinstance(function, functools.partial):
        given = [_text(value) for value in function.args]
        given += [f"{key}={_text(value)}" for key, value in sorted(function.keywords.items())]
        return f"{name_of(function.func)}({', '.join(given)})"
    if hasattr(function, "__qualname__") and not isinstance(function, type):
        name = f"{function.__module__ or 'builtins'}.{function.__qualname__}"
        owner = getattr(function, "__self__", None)
        if owner is not None and not isinstance(owner, type | ModuleType):
            return f"{name} of {_text(owner)}"
        code = getattr(function, "__code__", None)
        if "<" in name and code is not None:
            return f"{name}#{_digest([*_code(code), *_bound(function)])}"
        return name
    return _text(function)


def _text(value: Any) -> str:
    if callable(value) and hasattr(value, "__qualname__"):
        return name_of(value) if not isinstance(value, type) else f"{value.__module__}.{value.__qualname__}"
    text = " ".join(ADDRESS.sub("", repr(value)).split())
    if len(text) <= LONGEST:
        return text
    return f"{type(value).__module__}.{type(value).__qualname__}#{_digest([text])}"


def _code(code: CodeType) -> list[str]:
    parts = [code.co_code.hex(), *code.co_names]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            parts += _code(constant)
        elif isinstance(constant, frozenset):  # Its own order changes from run to run.
            parts += sorted(map(repr, constant))
        else:
            parts.append(repr(constant))
    return parts


def _bound(function: Any) -> list[str]:
    """What a function carries beside its code: defaults and the values it closes over."""
    cells = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # A name that has no value yet.
            if cell.cell_contents is not function:
                cells.append(cell.cell_contents)
    keywords = sorted((function.__kwdefaults__ or {}).items())
    return [_text(value) for value in (*(function.__defaults__ or ()), *keywords, *cells)]


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:8]
