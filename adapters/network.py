"""Whether the network (of computers) may be asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def offline() -> bool:
    """True when ``BENCH_OFFLINE`` is set to anything but 0 or nothing."""
    return os.environ.get("BENCH_OFFLINE", "") not in ("", "0")


@contextmanager
def hub_offline_if_asked() -> Iterator[None]:
    """Inside, the Hugging Face hub serves from its local cache alone when `offline`."""
    if not offline():
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
