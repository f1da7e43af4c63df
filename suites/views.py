"""Quality from several views of the same images: LiDAR and alignment. No labels are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.dataset import DecodeError
from bench.errors import BenchError
from bench.suite import Outcomes, engine_of
from suites.neighbours import normalised

if TYPE_CHECKING:
    from bench.record import Measurement
    from bench.suite import Task


def evaluate(task: Task) -> Iterator[Measurement]:
    """LiDAR (the headline) and alignment of the network's pooled feature over augmented views of training images."""
    settings = task.settings
    x, rows = embedded(task)
    m, q, width = x.shape
    facts: dict[str, Any] = {"images": m, "views": q, "width": width}
    common: dict[str, Any] = {"split": "train", "unit": "", "n": m, "seeds": [task.seed]}
    feature = {**task.feature(), "views": "random resized crops and flips"}
    yield task.measure(
        "lidar", lidar(x, settings["delta"], settings["epsilon"]), engine=engine_of("numpy"), headline=True,
        interval_note="a statistic of the whole sample, compared only at equal images, views and width", details=facts,
        feature=feature, **common,
    )  # fmt: skip
    each = misalignment(x, settings["alpha"])
    from scipy.special import stdtrit

    mean = float(each.mean())
    half = float(stdtrit(m - 1, 0.975)) * float(each.std(ddof=1)) / m**0.5
    yield task.measure(
        "alignment", mean, engine=engine_of("numpy"), higher_is_better=False,
        interval=(max(0.0, mean - half), mean + half), interval_method="t over images", details=facts,
        outcomes=Outcomes("alignment", {"row": rows, "alignment": each}), feature={**feature, "norm": "l2"}, **common,
    )  # fmt: skip


def lidar(x: np.ndarray, delta: float = 1e-4, epsilon: float = 1e-8) -> float:
    """Effective rank exp(-sum p log p) of linear discriminants, every image a class (Thilak et al. 2024).

    ``x`` float [m, q, D]: q views of each of m images. Sb: covariance of the class means over m - 1; Sw: scatter within
    classes over m (q - 1), plus ``delta`` on its diagonal; p: the eigenvalues of Sw^-1/2 Sb Sw^-1/2 over their sum,
    plus ``epsilon``. At most min(m - 1, D). Refused when all images look alike to the network.
    """
    from scipy.linalg import solve_triangular

    wide = x.astype(np.float64)
    m, q, width = wide.shape
    means = wide.mean(axis=1)
    between = means - means.mean(axis=0)
    within = (wide - means[:, None]).reshape(-1, width)
    sw = within.T @ within / (m * (q - 1)) + delta * np.eye(width)
    try:
        factor = np.linalg.cholesky(sw)
    except np.linalg.LinAlgError:
        raise BenchError("LiDAR cannot divide by the scatter of the views: set quality.delta higher") from None
    # Sb = B'B: its eigenvalues in the metric of Sw are the squares of the singular values of L^-1 B'.
    turned = solve_triangular(factor, between.T / (m - 1) ** 0.5, lower=True)
    eigenvalues = np.zeros(width)
    singular = np.linalg.svd(turned, compute_uv=False)
    eigenvalues[: len(singular)] = np.square(singular)
    if not eigenvalues.sum() > 0:
        raise BenchError("LiDAR is undefined: the features are the same for every image")
    p = eigenvalues / eigenvalues.sum() + epsilon
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def misalignment(x: np.ndarray, alpha: float = 2.0) -> np.ndarray:
    """float64 [m]: mean over pairs of views of |z_i - z_j|^alpha, z at length 1 (Wang & Isola 2020), of each image.

    ``x`` float [m, q, D]; 0 when the views look alike, at most 2^alpha.
    """
    m, q, width = x.shape
    z = normalised(x.reshape(-1, width)).astype(np.float64).reshape(m, q, width)
    first, second = np.triu_indices(q, k=1)
    squared = np.square(z[:, first] - z[:, second]).sum(axis=2)
    return np.asarray((squared ** (alpha / 2)).mean(axis=1))


def embedded(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(features float32 [m, q, D], rows int64 [m] of the images): a seeded draw, each view under a seed of its own.

    Images that cannot be decoded are passed over.
    """
    import torch

    from bench.cpu import cpu_pass
    from bench.device import forward_mode
    from bench.outputs import outputs
    from suites.loop_probe import augmentation
    from suites.training.feed import own_randomness, seed_all
    from suites.training.order import draw_seed

    settings, backbone, images = task.settings, task.backbone, task.images["train"]
    assert backbone is not None  # The engine refuses stored features.
    m, q = min(settings["images"], len(images)), settings["views"]
    augment = augmentation(settings, backbone)
    device = torch.device(task.device)
    if not getattr(backbone, "live", False):
        backbone.to(device)
    found: list[np.ndarray] = []
    rows: list[int] = []
    with cpu_pass(backbone, device), task.progress.stage("views", m, "images") as stage:
        for row in np.random.default_rng(task.seed).permutation(len(images)):
            if len(rows) == m:
                break
            try:
                image = images.image(int(row))
            except DecodeError:
                continue
            with own_randomness(cuda=False):
                batch = []
                for view in range(q):
                    seed_all(draw_seed(task.seed, int(row), view), cuda=False)
                    batch.append(augment(image))
            with forward_mode(device, task.protocol.precision):
                found.append(outputs(backbone, torch.stack(batch).to(device), ["pooled"])["pooled"].cpu().numpy())
            rows.append(int(row))
            stage.advance()
    if len(rows) < 2:
        raise BenchError(f"{images.name} {images.split} has fewer than two images that can be decoded: views need more")
    x = np.stack(found)
    if not np.isfinite(x).all():
        raise BenchError(f"'{task.card.name}' gives features that are not finite for views of {images.name}")
    return x, np.array(rows)
