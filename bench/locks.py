"""Advisory locks on the bytes of a file: the kernel gives them back when their owner dies, however it dies.

POSIX record locks (``fcntl``): one small file carries any number of them, a forked worker does not inherit them, and
NFS carries them between machines. They belong to the process, so this module keeps the books within one process too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_REFUSED = {errno.EACCES, errno.EAGAIN}


class _Open:
    """One file, opened once in this process: closing any second descriptor of it would drop every lock."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.users = 0
        self.held: dict[int, int] = {}
        """Byte -> number of shared holders here, or -1 for an exclusive one."""


_mutex = threading.RLock()
_opened: dict[tuple[int, int], _Open] = {}


def _forget() -> None:
    # A forked child holds none of its parent's locks.
    global _mutex
    _mutex = threading.RLock()
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


class LockFile:
    """The locks of ``path``, made where it is missing; where it cannot be made, every lock is granted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key: tuple[int, int] | None = None
        self._mine: dict[int, bool] = {}
        if sys.platform == "win32":
            return  # every lock is granted, and writers that race replace each other's equal files
        with _mutex:
            try:
                status = os.stat(path)
                key = (status.st_dev, status.st_ino)
            except OSError:
                key = None
            if key is None or key not in _opened:
                try:
                    handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
                except OSError:
                    return
                status = os.fstat(handle)
                key = (status.st_dev, status.st_ino)
                _opened[key] = _Open(handle)
            _opened[key].users += 1
            self._key = key

    def hold(self, byte: int, *, shared: bool = False) -> bool:
        """Take the lock on ``byte`` without waiting; False when somebody else, here or elsewhere, has it."""
        with _mutex:
            file = _opened.get(self._key) if self._key is not None else None
            if file is None:
                return True
            count = file.held.get(byte, 0)
            if count == -1 or (count > 0 and not shared):
                return False
            if count == 0:
                try:
                    fcntl.lockf(file.handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, byte)
                except OSError as error:
                    if error.errno in _REFUSED:
                        return False
                    # A filesystem without locks: writers that race replace each other's equal files.
            file.held[byte] = count + 1 if shared else -1
            self._mine[byte] = shared
            return True

    def drop(self, byte: int) -> None:
        """Give the lock on ``byte`` back; nothing happens when it is not ours."""
        with _mutex:
            shared = self._mine.pop(byte, None)
            file = _opened.get(self._key) if self._key is not None else None
            if shared is None or file is None:
                return
            left = file.held.get(byte, 0) - 1 if shared else 0
            if left > 0:
                file.held[byte] = left
                return
            file.held.pop(byte, None)
            with contextlib.suppress(OSError):
                fcntl.lockf(file.handle, fcntl.LOCK_UN, 1, byte)

    def is_current(self) -> bool:
        """False when the file at the path is no longer the one that was opened (its folder was removed)."""
        if self._key is None:
            return True
        try:
            status = os.stat(self.path)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._key

    def close(self) -> None:
        """Give everything back."""
        with _mutex:
            for byte in list(self._mine):
                self.drop(byte)
            file = _opened.get(self._key) if self._key is not None else None
            if file is None or self._key is None:
                return
            file.users -= 1
            if file.users == 0:
                del _opened[self._key]
                os.close(file.handle)
            self._key = None
