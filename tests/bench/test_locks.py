"""Locks on bytes of a file: counted within a process, gone with their owner."""

from __future__ import annotations

from storehelp import finished

from bench.locks import LockFile


def test_locks_exclude_others_and_die_with_their_owner(tmp_path):
    path = tmp_path / "lock"
    mine, again = LockFile(path), LockFile(path)
    assert mine.hold(3)
    assert not again.hold(3), "another holder in the same process"
    assert not again.hold(3, shared=True)
    assert again.hold(4)

    def other():
        theirs = LockFile(path)
        assert not theirs.hold(3)
        assert not theirs.hold(4)
        assert theirs.hold(5)
        theirs.close()

    finished(other)
    again.close()
    assert not LockFile(path).hold(3), "closing one holder must not drop the locks of another"
    finished(lambda: _assert(not LockFile(path).hold(3)))
    mine.close()
    finished(lambda: _assert(LockFile(path).hold(3)))


def test_shared_locks_are_counted(tmp_path):
    path = tmp_path / "lock"
    one, two = LockFile(path), LockFile(path)
    assert one.hold(0, shared=True)
    assert two.hold(0, shared=True)
    assert not LockFile(path).hold(0)
    one.close()
    finished(lambda: _assert(LockFile(path).hold(0, shared=True) and not LockFile(path).hold(0)))
    two.close()
    finished(lambda: _assert(LockFile(path).hold(0)))


def _assert(truth: bool) -> None:
    assert truth


def test_the_lock_of_a_removed_folder_is_not_current(tmp_path):
    path = tmp_path / "lock"
    held = LockFile(path)
    assert held.is_current()
    path.unlink()
    assert not held.is_current()
    fresh = LockFile(path)
    assert held.hold(1)
    assert fresh.hold(1), "another file of the same name is another lock"
