"""bench's own engine of semantic segmentation: its heads over a backbone's maps, trained and tested through windows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.device import forward_mode
from bench.suite import engine_of
from suites.drawing import chosen, segmentation_png
from suites.segmentation.crops import Crops, image_of
from suites.segmentation.networks import LinearSegmenter, UperNet
from suites.segmentation.overlap import Overlap
from suites.segmentation.windows import predict
from suites.training.drop_path import set_drop_path
from suites.training.feed import own_randomness, seed_all
from suites.training.groups import grouped
from suites.training.task import scaled_transform, train_task

if TYPE_CHECKING:
    from bench.card import Transform
    from bench.record import Engine
    from bench.suite import Task
    from suites.segmentation.maps import Maps
    from suites.training.feed import Collate, Samples
    from suites.training.loop import Trained

RATIOS = {
    "single": (1.0,),
    # 0.5, 0.75 and 1 to 1.75, but no short side below a window's: BEiT's and iBOT's SETR_Resize.
    "multi": (1.0, 1.0, 1.0, 1.25, 1.5, 1.75),
    "larger": (1.0, 1.32, 1.73, 2.28, 3.0),
}
"""Scales that a test image is seen at; where there are several, each also mirrored."""


@dataclass
class Job:
    """One training and its test. Another engine overrides how networks, samples and predictions are made."""

    task: Task
    classes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        return torch.device(self.task.device)

    @property
    def linear(self) -> bool:
        return bool(self.task.settings["head"] == "linear")

    @property
    def ratios(self) -> tuple[float, ...]:
        """The scales of the test."""
        return RATIOS[self.task.settings["test"]]

    @property
    def several(self) -> bool:
        """Whether the test looks at several scales."""
        return len(self.ratios) > 1

    @property
    def long(self) -> float:
        """The long side of a test image, in short sides at most; 0: of any length, as wherever several scales are
        looked at."""
        return 0.0 if self.several else float(self.task.settings["long_side"])

    @property
    def scale(self) -> tuple[float, float]:
        """Training images' short sides, as parts of the crop's."""
        return self.task.settings["scale_least"], self.task.settings["scale_most"]

    @property
    def feature(self) -> dict[str, Any]:
        """What the head reads, for the record."""
        layers = self.task.settings["layers"] if self.linear else 4
        depth = self.task.backbone.depth if self.task.backbone is not None else 0
        return {"tokens": "patches" if depth else "maps", "layers": layers, "norm": "none"}

    @cached_property
    def transform(self) -> Transform:
        found: Transform = scaled_transform(self.task)
        return found

    def engine(self) -> Engine:
        if self.linear:
            return engine_of("torch", "bench-linear+torch")
        upernet = engine_of("segmentation-models-pytorch")
        return engine_of("torch", f"bench-upernet+{upernet.name} {upernet.version}+torch")

    def train(self, dataset: Any) -> Trained:
        settings = self.task.settings
        with own_randomness():
            seed_all(self.task.seed)
            network = self.network()
        maps, heads = self.parts(network)
        parts: list[tuple[nn.Module, float]] = [] if maps.frozen else [(maps.trunk, 1.0)]
        groups = grouped(
            [*parts, (nn.ModuleList([*heads, *([maps.rescale] if maps.rescale is not None else [])]), 1.0)],
            weight_decay=settings["weight_decay"],
            layer_decay=settings["layer_decay"] if parts else 1.0,
            # The published linear heads leave nothing out.
            undecayed=not self.linear,
        )
        return train_task(
            self.task,
            network,
            torch.optim.AdamW(groups, lr=settings["lr"], betas=(0.9, 0.999)),
            self.samples(dataset),
            name=f"ade20k {settings['head']}",
            fingerprint=dataset.fingerprint,
            kind=settings["schedule"],
            start=settings["warmup_start"],
            collate=self.collate,
        )

    @property
    def collate(self) -> Collate | None:
        return None

    def network(self) -> nn.Module:
        """A new network to train; random numbers are the seed's."""
        settings, backbone = self.task.settings, self.task.backbone
        assert backbone is not None
        common = {"dropout": settings["dropout"], "size": settings["size"]}
        if self.linear:
            common |= {"spread": settings["blocks"] == "spread", "batch_norm": settings["batch_norm"]}
            return LinearSegmenter(backbone, len(self.classes), layers=settings["layers"], **common)
        network = UperNet(backbone, len(self.classes), width=settings["width"], **common)
        self.drop_paths(network.maps)
        return network

    def drop_paths(self, maps: Maps) -> None:
        set_drop_path(maps.trunk, self.task.settings["drop_path"], self.task.card.architecture, "ade20k.drop_path")

    def parts(self, network: Any) -> tuple[Maps, list[nn.Module]]:
        """The maps of ``network``, and everything after them."""
        return network.maps, [part for name, part in network.named_children() if name != "maps"]

    def samples(self, dataset: Any) -> Samples:
        settings = self.task.settings
        return Crops(dataset, self.transform, settings["size"], self.scale, settings["long_side"])

    def test(self, network: Any, dataset: Any) -> Overlap:
        """The overlap of every image of ``dataset``; a handful is drawn."""
        overlap = Overlap(len(self.classes))
        drawn = set(chosen(len(dataset)))
        with (
            forward_mode(self.device, self.task.protocol.precision),
            self.task.progress.stage("ade20k test", len(dataset), "images") as stage,
        ):
            for index in range(len(dataset)):
                image, truth = image_of(dataset, index), dataset.mask(index)
                predicted = self.judge(network, image, truth, overlap)
                if index in drawn:
                    drawing = segmentation_png(image, predicted, truth, len(self.classes))
                    self.task.files[f"drawn-{index}.png"] = drawing
                stage.advance()
        return overlap

    def judge(self, network: Any, image: Any, truth: Any, overlap: Overlap) -> Any:
        """Add one image to ``overlap``; its predicted classes, int [H, W]."""
        predicted = predict(
            network.logits, image, self.transform, size=self.task.settings["size"],
            stride=self.task.settings["stride"], ratios=self.ratios, flip=self.several,
            long=self.long, device=self.device,
        )  # fmt: skip
        overlap.add(predicted, truth)
        return predicted
