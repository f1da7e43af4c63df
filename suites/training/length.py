"""How long a training is: iterations or epochs of a total batch, and the pieces that one batch is worked off in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from bench.errors import BenchError


@dataclass(frozen=True)
class Length:
    """``iterations`` of ``batch`` images over ``samples``, the incomplete batch at an epoch's end left out.

    ``asked``: the total batch as the recipe has it; ``batch`` is smaller when there are fewer samples.
    """

    samples: int
    asked: int
    batch: int
    iterations: int
    multiple: int = 1
    """Pieces hold a multiple of so many images (mixup pairs them), where the batch allows it."""

    @classmethod
    def of(
        cls, samples: int, batch: int, *, epochs: float | None = None, iterations: int | None = None, multiple: int = 1
    ) -> Length:
        """Give ``epochs`` or ``iterations``. Refuses no samples, and a batch or length that is not above 0."""
        if samples < multiple:
            few = "no samples" if samples == 0 else f"{samples} of them, and a batch holds {multiple} at least"
            raise BenchError(f"there is nothing to train on: {few}")
        if batch < multiple or (iterations is None) == (epochs is None) or (iterations or epochs or 0) <= 0:
            raise BenchError(
                f"a training has {multiple} or more samples a batch and a length above 0, "
                f"not batch {batch}, epochs {epochs}, iterations {iterations}"
            )
        used = min(batch, samples)
        used -= used % multiple
        if iterations is None:
            assert epochs is not None
            iterations = max(1, math.floor(epochs * (samples // used) + 1e-9))
        return cls(samples, batch, used, iterations, multiple)

    @property
    def per_epoch(self) -> int:
        """Iterations in an epoch."""
        return self.samples // self.batch

    @property
    def epochs(self) -> float:
        return self.iterations / self.per_epoch

    def pieces(self, micro: int, processes: int = 1) -> list[range]:
        """The places 0..batch-1 of one batch, split into equal runs of at most ``micro`` (they differ by ``multiple``).

        A ``micro`` below ``multiple`` counts as ``multiple``. There are as many pieces for each of ``processes``, where
        the batch allows it.
        """
        units = self.batch // self.multiple
        count = math.ceil(units / max(1, micro // self.multiple))
        if units >= processes:
            count = min(math.ceil(count / processes), units // processes) * processes
        ends = [self.multiple * (units * part // count) for part in range(count + 1)]
        return [range(first, last) for first, last in pairwise(ends)]
