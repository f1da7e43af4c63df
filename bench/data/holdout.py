"""The stated hold-out of a set that has no test split: by digest, so the same samples are held out everywhere."""

from __future__ import annotations

import hashlib
import os

SHARE = 0.2
"""Share of the samples that is reported on, on average."""
HOLDOUT = "holdout"
"""The name of that split."""


def held_out(key: str | bytes) -> bool:
    """Whether the sample with this key (a file name, or a digest of its content) belongs to the hold-out."""
    digest = hashlib.sha256(key if isinstance(key, bytes) else os.fsencode(key)).digest()
    return int.from_bytes(digest[:8], "big") < SHARE * 2**64
