"""Writing that is whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bench.errors import BenchError

TEMPORARY = ".partial-"
"""Prefix of unfinished files: readers skip them, `bench clean` removes the stale ones."""
TRIES = 20
"""Times that a file is written anew because its folder went away meanwhile."""


def at_home(path: str | Path) -> Path:
    """``path`` with ``~`` written out; the ``~name`` of a user who is not there stays, and will not be found."""
    return Path(os.path.expanduser(path))


def regular(path: Path) -> os.stat_result:
    """The status of a file whose reading comes to an end. Raises OSError, and `BenchError` for a pipe or a device."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise BenchError(f"{path} is {what}, not a file")
    return status


def write_atomically(
    path: Path, content: bytes | Callable[[BinaryIO], object], *, exclusive: bool = False, durable: bool = True
) -> bool:
    """Write ``path`` so that a reader, or a machine that lost power, sees the whole file or none.

    ``exclusive``: an existing file is left as it is and False is returned (first writer wins). ``durable=False`` does
    not wait for the disk: for files that can be made again, many at a time.
    Raises `BenchError` for a full disk, an unwritable folder, or a device or folder in its place, leaving no debris.
    """
    if not path.name:
        raise BenchError(f"{path} is a folder, and a file is to be written: give a file's name")
    if not exclusive:
        # The file is put in the place of what was there, which must not be a device: /dev/null would be gone.
        with contextlib.suppress(OSError):
            regular(path)
    for left in reversed(range(TRIES)):
        try:
            return _write(path, content, exclusive=exclusive, durable=durable)
        except FileNotFoundError as error:
            # Another process removed the folder between two of our steps: it is made again.
            if not left:
                raise refusal(error, path) from error
        except OSError as error:
            raise refusal(error, path) from error
    raise AssertionError


def _write(path: Path, content: bytes | Callable[[BinaryIO], object], *, exclusive: bool, durable: bool) -> bool:
    temporary = path.with_name(f"{TEMPORARY}{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as stream:
            if callable(content):
                content(stream)
            else:
                stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        if exclusive:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        else:
            os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
        return True
    finally:
        # When the folder itself is what failed, there is nothing to remove, and the error above must stand.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder that could not take a file, before work is spent on what should go there.

    A folder that is not there yet is not made: the nearest one above it is tried. Raises `BenchError`.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise BenchError(f"{folder} is a file: give a folder")
        place = next((above for above in (folder, *folder.absolute().parents) if above.exists()), folder)
        # A folder in the place of a file when it has to be made: some places allow the one and not the other.
        if place == folder:
            # Without a name, where the system can: nothing of it stays when the process is killed here.
            with tempfile.TemporaryFile(dir=place, prefix=TEMPORARY) as probe:
                probe.write(b"?")
        else:
            folder_probe = place / f"{TEMPORARY}probe.{os.getpid()}-{secrets.token_hex(4)}"
            folder_probe.mkdir()
            folder_probe.rmdir()
    except OSError as error:
        raise refusal(error, folder / "a record") from error


def refusal(error: OSError, path: Path) -> BenchError:
    """The sentence for an operating system's error while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        full = "the disk is full" if error.errno == errno.ENOSPC else "the disk is full (your quota on it is used up)"
        return BenchError(
            f"{full}: {path} could not be written; what was finished is kept: free some space "
            f"(`bench clean --keep-gb N` trims the feature store) and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BenchError(f"{path.parent} is not writable: give another folder or mend its permissions")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return BenchError(f"{path} cannot be written: a part of that path is a file, not a folder")
    return BenchError(f"{path} could not be written: {error.strerror or error}; give another folder")


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself durable; some filesystems refuse to sync a folder, and then nothing is lost but that.
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
