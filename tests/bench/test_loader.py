"""Worker processes that make images."""

import multiprocessing
import os

import pytest

from bench.loader import end_without


@pytest.mark.parametrize(("parent", "code"), [(os.getpid(), 0), (1, 1)])
def test_a_worker_whose_parent_is_gone_already_ends(parent, code):
    """Killed between the fork and PyTorch's own watch, which would take the reaper for the parent."""
    worker = multiprocessing.get_context("fork").Process(target=end_without, args=(parent, 0))
    worker.start()
    worker.join(20)
    assert worker.exitcode == code


def test_every_loader_asks(monkeypatch):
    """A worker that begins under another parent than it was begun by is gone, and the run says so."""
    from bench.errors import BenchError
    from bench.loader import Decoder, decode

    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(BenchError, match="a process that decodes images died"):
        list(decode(Decoder([], None), [[0]], workers=1, size=1))
