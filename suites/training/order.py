"""The order of the samples, as a function of the iteration: there is no position to lose."""

from __future__ import annotations

import numpy as np

from suites.training.length import Length


class Order:
    """Every epoch is a permutation of the samples of its own; iteration ``i`` reads ``batch`` of them."""

    def __init__(self, length: Length, seed: int) -> None:
        self.length = length
        self.seed = seed
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def batch(self, iteration: int) -> np.ndarray:
        """int64 [batch]: the samples of one total batch, no sample twice within an epoch."""
        epoch, step = divmod(iteration, self.length.per_epoch)
        if epoch != self._epoch:
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.length.samples)
            self._epoch = epoch
        return self._permutation[step * self.length.batch : (step + 1) * self.length.batch]


def draw_seed(seed: int, iteration: int, place: int) -> int:
    """The random seed of the sample at ``place`` of the batch of ``iteration``; of a piece, that of its first place
    with ``place`` negative (-1 - first)."""
    # SeedSequence takes no negative numbers: pieces have a branch of their own.
    branch = (0, place) if place >= 0 else (1, -1 - place)
    return int(np.random.SeedSequence([seed, iteration, *branch]).generate_state(1, np.uint32)[0])
