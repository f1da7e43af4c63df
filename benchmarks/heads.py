"""52 linear heads (13 learning rates x 4 features) at once, against bare products and against one probe after another.

    python benchmarks/heads.py [--samples 20000] [--classes 1000] [--batch 1024] [--steps 4] [--rounds 3]

``bare products``: of every step the two that nothing can avoid, logits and gradient, for all heads of a feature.
``one after another``: torch's own nn.Linear, cross_entropy and SGD, a loop per head. Processor time, medians over
rounds in which the contenders take turns with the same threads (OMP_NUM_THREADS).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from suites.heads import Recipe, learn

RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
WIDTHS = (384, 768, 1536, 1920)
"""Of a ViT-S: the last class token, with the patch mean, the last four class tokens, with the patch mean."""


def main() -> None:
    """Print seconds per step and the ratios."""
    parser = argparse.ArgumentParser(description="benchmark of concurrent heads")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    features = [rng.standard_normal((args.samples, width), dtype=np.float32) for width in args.widths]
    y = rng.integers(0, args.classes, args.samples)
    recipe = Recipe(rates=RATES, iterations=args.steps, batch=args.batch)
    print(f"{len(RATES) * len(features)} heads, {args.classes} classes, {torch.get_num_threads()} threads", flush=True)

    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: [learn(x, y, args.classes, recipe, 0) for x in features],
        "bare products": lambda: [products(x, args.classes, recipe) for x in features],
        "one after another": lambda: [alone(x, y, args.classes, recipe, rate) for x in features for rate in RATES],
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, run in contenders.items():
            begun = time.process_time()
            run()
            times[name].append(time.process_time() - begun)
    for name, rounds in times.items():
        ratio = statistics.median(ours / other for ours, other in zip(times["ours"], rounds, strict=True))
        print(f"{name:20s} {statistics.median(rounds) / args.steps:8.3f} s a step   ours / this {ratio:.2f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def products(x: np.ndarray, classes: int, recipe: Recipe) -> None:
    z = torch.from_numpy(x)
    weight = torch.zeros(len(recipe.rates) * classes, z.shape[1])
    for _ in range(recipe.iterations):
        batch = z[: recipe.batch]
        torch.mm((batch @ weight.T).T, batch)


def alone(x: np.ndarray, y: np.ndarray, classes: int, recipe: Recipe, rate: float) -> None:
    z, targets = torch.from_numpy(x), torch.from_numpy(y)
    head = torch.nn.Linear(z.shape[1], classes)
    optimiser = torch.optim.SGD(head.parameters(), lr=rate, momentum=recipe.momentum)
    for _ in range(recipe.iterations):
        rows = torch.randint(0, len(z), (recipe.batch,))
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(head(z[rows]), targets[rows]).backward()
        optimiser.step()


if __name__ == "__main__":
    main()
