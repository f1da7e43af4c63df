"""What every test may rely on: no network, a cache of its own, small features on disk."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what stands before `&` deaf to Ctrl-C, and every process that a test interrupts would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's feature store, and none reaches a hub."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _own_signals():
    """A command that ran inside a test has the process deaf to signals when it ends, as befits a process that ends."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before, hook = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    sys.unraisablehook = hook


@pytest.fixture
def features_dir(tmp_path_factory) -> Path:
    """Three separable clusters, 60 + 30 samples of 8 numbers, in the form of `features:`."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 8)) * 2
    for split, n in (("train", 60), ("test", 30)):
        y = np.arange(n) % 3
        np.savez(folder / f"{split}.npz", x=(centres[y] + rng.standard_normal((n, 8))).astype(np.float32), y=y)
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> str:
    """Three shades of noise, 30 + 15 images of 40 x 36, as `imagefolder:` reads them."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 5)):
        for number, name in enumerate(("dark", "grey", "light")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (36, 40, 3)) + 75 * number
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.png")
    return f"imagefolder:{root}"


def pytest_terminal_summary(terminalreporter):
    """What became of the records in the tests that put faults into runs."""
    helper = sys.modules.get("faulthelp")
    if helper is not None and helper.COUNTS["tries"]:
        terminalreporter.write_line("faults: " + ", ".join(f"{name} {n}" for name, n in helper.COUNTS.items()))
