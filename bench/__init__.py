"""bench: the evaluation harness for frozen visual representations.

The public names are imported on first use, so that ``import bench`` and ``bench --help`` stay cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench._version import __version__
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.api import run as run
    from bench.live import wrap as wrap
    from bench.loading import load as load

__all__ = ["BenchError", "__version__", "load", "run", "wrap"]

# No module may bear one of these names: importing it would put the module where users expect the function.
_LAZY = {"load": "bench.loading", "run": "bench.api", "wrap": "bench.live"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
