"""The JSON files of a folder, read within bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.errors import BenchError

_LARGEST = 1 << 20


def read_json(path: Path, kind: type[dict[str, Any]] | type[list[Any]] | None = None) -> Any:
    """The content of ``path``. Raises `BenchError` for what is too large, damaged, or not of the ``kind`` expected."""
    if path.stat().st_size > _LARGEST:
        raise BenchError(f"{path} is too large to be a configuration")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise BenchError(f"{path} is no readable JSON: {error}") from error
    if kind is not None and not isinstance(content, kind):
        raise BenchError(f"{path} holds a {type(content).__name__} where a {kind.__name__} is expected")
    return content
