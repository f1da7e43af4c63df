"""Where bench keeps what it can make again: nothing outside this folder is ever removed."""

from __future__ import annotations

import os
from pathlib import Path

from bench.files import at_home

VARIABLE = "BENCH_CACHE"


def cache_root() -> Path:
    """The cache folder: ``$BENCH_CACHE``, else the platform's own (it may not exist yet)."""
    given = os.environ.get(VARIABLE)
    if given:
        return at_home(given).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("bench")).absolute()
