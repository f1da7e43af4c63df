"""Whether the network (of computers) may be asked."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


def offline() -> bool:
    """True when ``BENCH_OFFLINE`` is set to anything but 0 or nothing."""
    return os.environ.get("BENCH_OFFLINE", "") not in ("", "0")


def _reachable(address: str) -> bool:
    """Whether the host of ``address`` has a name here; behind a proxy nobody but the proxy knows."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    host = urlsplit(address).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


@contextmanager
def hub_from_cache() -> Iterator[None]:
    """Inside, the Hugging Face hub serves from its local cache alone, if `offline` or if it is out of reach.

    Its own client would try an unreachable hub for most of a minute before it looks into the cache.
    """
    from huggingface_hub import constants

    if not offline() and _reachable(constants.ENDPOINT):
        yield
        return
    with without_hub():
        yield


@contextmanager
def without_hub() -> Iterator[None]:
    """Inside, nothing is asked of the Hugging Face hub: what is on this machine is all there is."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
