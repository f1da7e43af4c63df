"""ade20k: semantic segmentation with a linear head on the frozen network, or UperNet fine-tuned with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.errors import BenchError
from bench.options import Allowed, count, positive, words
from bench.suite import Needs, Outcomes, engine_of
from suites.annotated import annotated
from suites.drawing import chosen, segmentation_png
from suites.segmentation.overlap import Overlap

if TYPE_CHECKING:
    import torch

    from bench.card import Card, Transform
    from bench.protocol import Protocol
    from bench.record import Measurement
    from bench.suite import Task
    from suites.segmentation.networks import Segmenter
    from suites.training.loop import Trained

KINDS = "segfolder:PATH or ade20k:PATH"
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of multi-scale inference, each also mirrored."""


class ADE20K:
    """mIoU (the headline), mAcc and aAcc at the images' own size, from sums over the whole split."""

    name = "ade20k"
    default = "ade20k/linear@1"
    options: ClassVar[dict[str, Allowed]] = {
        "engine": words("own"),
        "head": words("linear", "upernet"),
        "layers": count(most=64),
        "iterations": count(),
        "batch": count(most=65_536),
        "size": count(least=16, most=4096),
        "stride": count(most=4096),
        "lr": positive(most=100),
        "warmup": count(least=0),
        "warmup_start": Allowed(least=0, most=1),
        "weight_decay": Allowed(least=0, most=100),
        "layer_decay": Allowed(above=0, most=1),
        "drop_path": Allowed(least=0, below=1),
        "dropout": Allowed(least=0, below=1),
        "width": count(most=4096),
        "test": words("single", "multi"),
    }

    def needs(self, protocol: Protocol, card: Card) -> Needs:
        if card.family in ("video", "text"):
            raise BenchError(f"suite 'ade20k' segments images, and '{card.name}' is a {card.family} network")
        if protocol.settings["stride"] > protocol.settings["size"]:
            raise BenchError("ade20k.stride is larger than ade20k.size: windows would leave pixels out")
        return Needs(features=(), backbone=True)

    def evaluate(self, task: Task) -> Iterator[Measurement]:
        import torch

        train, test = annotated(task, "mask", "masks of class numbers", KINDS)
        for split in (train, test):
            check = getattr(split, "check", None)
            if check is not None:
                check()
        job = _Job(task, torch.device(task.device), len(train.classes))
        trained = job.train(train)
        overlap = job.test(trained.network, test)  # type: ignore[arg-type]
        table = overlap.table()
        union = table[:, 1] + table[:, 2] - table[:, 0]
        outcomes = Outcomes("images", {"intersection": table[:, 0], "union": union, "labelled": table[:, 2]})
        values = overlap.values()
        intervals = overlap.intervals(values, task.seed)
        details = {
            **trained.details(),
            "per_class": dict(zip(map(str, test.classes), overlap.per_class(), strict=True)),
        }
        for metric, value in values.items():
            interval = intervals[metric]
            yield task.measure(
                metric, value, n=len(test), engine=engine_of("torch", job.engine), interval=interval,
                interval_method="bootstrap over images" if interval else None,
                interval_note=None if interval else "too few images: the metric is undefined in resamples",
                outcomes=outcomes, headline=metric == "miou", seeds=[task.seed],
                details=details if metric == "miou" else {}, feature=job.feature,
            )  # fmt: skip


@dataclass
class _Job:
    """One training and its test."""

    task: Task
    device: torch.device
    classes: int

    @property
    def engine(self) -> str:
        if self.task.settings["head"] == "linear":
            return "bench-linear+torch"
        upernet = engine_of("segmentation-models-pytorch")
        return f"bench-upernet+{upernet.name} {upernet.version}+torch"

    @property
    def feature(self) -> dict[str, Any]:
        """What the head reads, for the record."""
        layers = 4 if self.task.settings["head"] == "upernet" else self.task.settings["layers"]
        depth = self.task.backbone.depth if self.task.backbone is not None else 0
        return {"tokens": "patches" if depth else "maps", "layers": layers, "norm": "none"}

    @property
    def transform(self) -> Transform:
        from bench.card import Transform

        own = self.task.card.transform
        if own is not None and own.custom is not None:
            raise BenchError(
                "suite 'ade20k' scales and crops images itself, and this model brings a callable for a transform: "
                "give bench.wrap a transform of sizes, mean and std"
            )
        return own or Transform()

    def train(self, dataset: Any) -> Trained:
        import torch

        from bench.loader import default_workers
        from suites.segmentation.crops import Crops
        from suites.training.groups import grouped
        from suites.training.length import Length
        from suites.training.loop import train
        from suites.training.schedule import Schedule

        task, settings = self.task, self.task.settings
        network = self.network()
        iterations = settings["iterations"]
        parts = [(network.backbone, 1.0)] if not network.frozen else []
        parts = [(getattr(part, "network", part), factor) for part, factor in parts]
        heads = torch.nn.ModuleList([m for name, m in network.named_children() if name != "backbone"])
        groups = grouped(
            [*parts, (heads, 1.0)],
            weight_decay=settings["weight_decay"],
            layer_decay=settings["layer_decay"] if parts else 1.0,
        )
        return train(
            network,
            torch.optim.AdamW(groups, lr=settings["lr"], betas=(0.9, 0.999)),
            Crops(dataset, self.transform, settings["size"], (0.5, 2.0)),
            length=Length.of(len(dataset), settings["batch"], iterations=iterations),
            schedule=Schedule(
                "poly", settings["lr"], iterations, warmup=min(settings["warmup"], iterations // 2),
                start=settings["lr"] * settings["warmup_start"],
            ),
            device=self.device,
            progress=task.progress,
            precision=task.protocol.precision,
            seed=task.seed,
            name=f"ade20k {settings['head']}",
            folder=task.folder,
            identity=[task.protocol.id, task.card.weight_digest, dataset.fingerprint],
            micro=task.batch,
            workers=default_workers(self.device) if task.workers is None else task.workers,
            every=max(1, iterations // 20),
        )  # fmt: skip

    def network(self) -> Segmenter:
        import torch

        from suites.segmentation.networks import LinearSegmenter, UperNet
        from suites.training.feed import own_randomness, seed_all

        settings, backbone = self.task.settings, self.task.backbone
        assert backbone is not None
        with own_randomness():
            seed_all(self.task.seed)
            if settings["head"] == "linear":
                network: Segmenter = LinearSegmenter(
                    backbone, self.classes, layers=settings["layers"], dropout=settings["dropout"]
                )
            else:
                network = UperNet(backbone, self.classes, width=settings["width"])
                if settings["drop_path"]:
                    set_drop_path(network.backbone, settings["drop_path"])
        if torch.distributed.is_initialized() and self.device.type == "cuda":
            network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return network

    def test(self, network: Segmenter, dataset: Any) -> Overlap:
        from bench.device import forward_mode
        from suites.segmentation.crops import image_of
        from suites.segmentation.windows import predict

        settings, overlap = self.task.settings, Overlap(self.classes)
        several = settings["test"] == "multi"
        drawn = set(chosen(len(dataset)))
        with (
            forward_mode(self.device, self.task.protocol.precision),
            self.task.progress.stage("ade20k test", len(dataset), "images") as stage,
        ):
            for index in range(len(dataset)):
                image, truth = image_of(dataset, index), dataset.mask(index)
                predicted = predict(
                    network.logits, image, self.transform, size=settings["size"], stride=settings["stride"],
                    ratios=RATIOS if several else (1.0,), flip=several, device=self.device,
                )  # fmt: skip
                overlap.add(predicted, truth)
                if index in drawn:
                    self.task.files[f"drawn-{index}.png"] = segmentation_png(image, predicted, truth, self.classes)
                stage.advance()
        return overlap


def set_drop_path(network: Any, rate: float) -> None:
    """Stochastic depth growing linearly from 0 to ``rate`` over a timm network's blocks."""
    from timm.layers import DropPath

    paths = [part for part in network.modules() if isinstance(part, DropPath)]
    blocks = [part for part in network.modules() if hasattr(part, "drop_path1") and hasattr(part, "drop_path2")]
    for number, block in enumerate(blocks):
        share = rate * number / max(1, len(blocks) - 1)
        if share > 0:
            block.drop_path1, block.drop_path2 = DropPath(share), DropPath(share)
    if not blocks:
        for number, path in enumerate(paths):
            path.drop_prob = rate * number / max(1, len(paths) - 1)
