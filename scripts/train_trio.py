"""Train the distilled trio: a teacher, and one small student with and one without distillation from it.

    python scripts/train_trio.py [--seeds 5] [--images 2000] [--epochs 12] [--out DIR]

Teacher: a bundled ImageNet encoder, frozen, with a logistic probe trained on the first images of each class of
Fashion-MNIST's train split (2 000 of them: the images of ``--data demo``). Students: ResNet-8 for 32-pixel images
(78 000 parameters), trained on the same images with the same schedule, order and initial weights; the plain one by
cross-entropy, the other by Hinton's distillation (tau 4, weight 0.9). Every seed trains both arms; the weights of seed
0 are kept in ``adapters/trio``, the test accuracies of all seeds in ``seeds.json`` beside them, with Welch's t-test of
the arms. Nothing is selected on the test images: the last epoch counts.

With ``--out`` the bundled trio stays as it is, and the students of all seeds are kept in DIR (``plain-0.safetensors``,
``kd-0.safetensors`` and so on): two arms of trainings for ``bench compare``.

Runs in minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

import bench
from adapters.layout import CIFAR10
from adapters.networks import build
from bench.backbone import Backbone
from bench.data.opening import open_data
from bench.dataset import Dataset
from bench.extract import extract
from bench.progress import Progress
from bench.transform import apply, resized
from suites.logreg_path import Path as LogisticPath

TARGET = Path(__file__).resolve().parents[1] / "adapters" / "trio"
ENCODER = "demo:efficientnet-lite0@128"
STUDENT = "cifar_resnet8"
TAU, WEIGHT = 4.0, 0.9
"""Temperature, and weight of the distillation term; the rest is the labels' (RepDistiller's KD)."""


def main() -> None:
    """Train, save, and print the table."""
    parser = argparse.ArgumentParser(description="train the distilled trio")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--images", type=int, default=2000, help="training images, the same for teacher and students")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--out", type=Path, help="keep the students of all seeds here, and the bundled ones as they are"
    )
    args = parser.parse_args()
    out: Path = args.out or TARGET
    begun = time.perf_counter()
    splits = open_data("fashion-mnist")
    train = part(splits.train, args.images)
    labels = torch.from_numpy(train.labels)

    head, targets = teach(train)
    say(f"teacher: probe on {len(train)} images, {accuracy(targets, labels):.2f} % on them", begun)
    save(head, out / "teacher_head.safetensors")
    images, test = pixels(train), pixels(splits.test)
    truth = torch.from_numpy(splits.test.labels)

    found: dict[str, list[float]] = {"plain": [], "kd": []}
    for seed in range(args.seeds):
        for arm in found:
            network = learn(images, labels, targets if arm == "kd" else None, seed, args.epochs, args.batch)
            with torch.inference_mode():
                logits = torch.cat([network(batch) for batch in test.split(1000)])
            found[arm].append(accuracy(logits, truth))
            say(f"seed {seed} {arm}: {found[arm][-1]:.2f} % of {len(truth)} test images", begun)
            if args.out is not None:
                save(network.state_dict(), out / f"{arm}-{seed}.safetensors")
            elif seed == 0:
                save(network.state_dict(), out / f"student_{arm}.safetensors")
        # Written after every seed: an interrupted run keeps what it has.
        write(out, args, found, train.fingerprint, splits.test.fingerprint)
    print((out / "seeds.json").read_text())


def write(out: Path, args: argparse.Namespace, found: dict[str, list[float]], train: str, test: str) -> None:
    """``seeds.json``: how the trio was made, and every seed's test accuracy."""
    report = {
        "encoder": ENCODER,
        "student": STUDENT,
        "images": args.images,
        "epochs": args.epochs,
        "batch": args.batch,
        "tau": TAU,
        "weight": WEIGHT,
        "train_fingerprint": train,
        "test_fingerprint": test,
        "test_top1": found,
        **welch(found["kd"], found["plain"]),
    }
    (out / "seeds.json").write_text(json.dumps(report, indent=1) + "\n")


def part(dataset: Dataset, n: int) -> Dataset:
    """The first n / C images of every class."""
    from bench.data.subset import Subset

    each = n // len(dataset.class_ids)
    rows = [np.flatnonzero(dataset.labels == c)[:each] for c in dataset.class_ids]
    return Subset(dataset, np.sort(np.concatenate(rows)))


def teach(train: Dataset) -> tuple[dict[str, Tensor], Tensor]:
    """(the probe's weight [10, D] and bias [10], its logits [N, 10] on the training images)."""
    encoder = bench.load(ENCODER)
    assert isinstance(encoder, Backbone)
    x = extract(
        encoder, train, ["pooled"], device=torch.device("cpu"), progress=Progress(), workers=1
    ).features.array("pooled")  # fmt: skip
    # A strong penalty: the teacher's certainty on its own training images is what the student learns from.
    (fit,) = LogisticPath(x, train.labels, len(train.class_ids)).fit([0.01])
    head = {"weight": torch.from_numpy(fit.weight.T).float(), "bias": torch.from_numpy(fit.bias).float()}
    return head, torch.from_numpy(fit.logits(x)).float()


def pixels(dataset: Dataset) -> Tensor:
    """Every image as the students see it, float32 [N, 3, 32, 32]."""
    transform = resized(CIFAR10, 32)
    return torch.stack([apply(transform, dataset.image(i)) for i in range(len(dataset))])


def learn(
    images: Tensor, labels: Tensor, targets: Tensor | None, seed: int, epochs: int, batch: int
) -> torch.nn.Module:
    """A student after its last epoch. ``targets``: the teacher's logits [N, 10], None for the plain arm."""
    torch.manual_seed(seed)
    network = build(STUDENT, num_classes=10).to(memory_format=torch.channels_last)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
    steps = epochs * (len(images) // batch)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps, pct_start=0.2)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: len(images) // batch * batch].split(batch):
            flipped = torch.rand(batch)[:, None, None, None] < 0.5
            x = torch.where(flipped, images[rows].flip(3), images[rows])
            logits = network(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[rows])
            if targets is not None:
                soft = F.kl_div(
                    F.log_softmax(logits / TAU, 1), F.softmax(targets[rows] / TAU, 1), reduction="batchmean"
                )
                loss = (1 - WEIGHT) * loss + WEIGHT * TAU**2 * soft
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Percent."""
    return 100 * float((logits.argmax(1) == labels).double().mean())


def save(tensors: dict[str, Any], path: Path) -> None:
    """Write a weight file, its folder with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {key: value.contiguous() for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    save_file(kept, path, metadata={"format": "pt"})


def welch(a: list[float], b: list[float]) -> dict[str, Any]:
    """Mean difference a - b over training seeds with Welch's interval and p-value; nothing below two seeds."""
    from scipy.stats import ttest_ind

    if len(a) < 2:
        return {}
    test = ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(0.95)
    return {
        "difference": float(np.mean(a) - np.mean(b)), "interval": [float(interval.low), float(interval.high)],
        "p": float(test.pvalue), "sd": {"kd": float(np.std(a, ddof=1)), "plain": float(np.std(b, ddof=1))},
    }  # fmt: skip


def say(what: str, begun: float) -> None:
    print(f"{time.perf_counter() - begun:6.0f} s  {what}", flush=True)


if __name__ == "__main__":
    main()
