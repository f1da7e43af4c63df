"""Earlier: the files that `publish` wrote into a folder before, so that those of models long gone can be removed.

``.published.json`` in the site's folder holds the name and SHA-256 of every file. Whatever is not in it, or was changed
since, is somebody else's and stays.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import BenchError
from bench.files import regular, write_atomically

NAME = ".published.json"
LARGEST = 64 * 2**20
"""Bytes of the list."""
_OURS = re.compile(r"(models|assets)(/[A-Za-z0-9_][A-Za-z0-9._,=@+-]*)+")


class Earlier(BaseModel):
    """Names below the site's folder -> SHA-256 of what was written there."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    files: dict[str, str] = {}

    def note(self, name: str, content: bytes) -> None:
        self.files[name] = hashlib.sha256(content).hexdigest()


def read(out: Path) -> Earlier:
    """What was written into ``out`` before; nothing where there is no list.

    Raises `BenchError` for a list that cannot be read: what it names would stay for ever.
    """
    path = out / NAME
    try:
        if regular(path).st_size > LARGEST:
            raise BenchError(f"{path} is larger than {LARGEST >> 20} MiB: remove it, or give --out another folder")
        return Earlier.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Earlier()
    except (OSError, ValidationError):
        raise BenchError(
            f"{path}, the list of what was published here, is damaged: remove it (pages of models that are gone then "
            f"stay) or give --out another folder"
        ) from None


def write(out: Path, written: Earlier) -> None:
    write_atomically(out / NAME, (json.dumps(written.model_dump(), sort_keys=True) + "\n").encode())


def remove_stale(out: Path, before: Earlier, now: Earlier) -> int:
    """Remove the files of ``before`` that ``now`` lacks, and folders that this empties; how many files."""
    home, removed = out.resolve(), 0
    for name in sorted(before.files.keys() - now.files.keys()):
        path = out / name
        # The list may have been written by anybody; and a link leads to what is not the site's.
        if not _OURS.fullmatch(name) or path.is_symlink() or path.parent.resolve() != home / Path(name).parent:
            continue
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() != before.files[name]:
                continue
            path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BenchError(
                f"{path} is of a model that is no longer in the ledger and cannot be removed: {error.strerror}"
            ) from error
        removed += 1
        for folder in (path.parent, *path.parent.parents):
            if folder == out:
                break
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
    return removed
