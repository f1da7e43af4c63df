"""detectron2, the package: whether it is installed, how it is built, and without its advice on the screen."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import BenchError

COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
"""Of detectron2's official repository, which has no release: the one that is built and trained in CI."""
REMEDY = (
    "pip install 'bench-representations[detectron2]' and then pip install --no-build-isolation "
    f"'git+https://github.com/facebookresearch/detectron2@{COMMIT}'"
)


def check_detectron2(suite: str) -> None:
    """Raises `BenchError` where detectron2 is not installed, or cannot be imported."""
    if importlib.util.find_spec("detectron2") is None:
        raise BenchError(
            f"{suite}.engine=detectron2 needs detectron2, which is not installed here: {REMEDY}; or take the default "
            f"engine, whose protocols are named tv-..."
        )
    try:
        with quietly():
            importlib.import_module("detectron2.modeling")
    except Exception as error:
        raise BenchError(
            f"{suite}.engine=detectron2 needs detectron2, which is installed but cannot be imported "
            f"({type(error).__name__}: {error}): build it again beside this torch, {REMEDY}"
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Without PyTorch's advice to detectron2's authors, which it gives when the package is imported and used."""
    tracing = logging.getLogger("torch.fx._symbolic_trace")
    before = tracing.level
    tracing.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tracing.setLevel(before)
