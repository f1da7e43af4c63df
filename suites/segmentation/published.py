"""The published engine of semantic segmentation: mmsegmentation's segmentor, heads, losses, samples and metric.

Its maintained fork (onedl-mmsegmentation) is what installs today. The segmentor reads our maps; the training loop is
`suites.training`, for exact resume, one total batch over processes and a plan before the start, which mmengine's Runner
does not give.
"""

from __future__ import annotations

import importlib.util
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.suite import engine_of
from suites.segmentation.crops import image_of
from suites.segmentation.maps import FourMaps, FrozenMaps, Maps, beside
from suites.segmentation.networks import AUXILIARY
from suites.segmentation.own import Job
from suites.training.feed import own_randomness

if TYPE_CHECKING:
    from PIL import Image

    from bench.record import Engine
    from suites.segmentation.overlap import Overlap
    from suites.training.feed import Collate, Samples

MODULES = ("mmengine", "mmcv", "mmseg")
REMEDY = "pip install 'bench-representations[mmseg]'"
FULL = 0.75
"""No class may fill more of a crop than this (cat_max_ratio)."""


def check_installed() -> None:
    """Raises `BenchError` where mmsegmentation is not installed, or cannot be imported."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchError(
            f"ade20k.engine=mmseg needs mmsegmentation, and {', '.join(missing)} is not installed here: {REMEDY}, or "
            f"--set ade20k.engine=own (a named variant)"
        )
    try:
        with warnings.catch_warnings():
            # Of operators that only its compiled edition has, none of which is used here.
            warnings.simplefilter("ignore")
            importlib.import_module("mmseg.models")
    except Exception as error:
        raise BenchError(
            f"ade20k.engine=mmseg needs mmsegmentation, which is installed but cannot be imported "
            f"({type(error).__name__}: {error}): {REMEDY} brings versions that go together"
        ) from error


def void_of(classes: int) -> int:
    """The number of pixels that count nowhere in mmsegmentation's masks."""
    return 255 if classes <= 255 else 65_535


class Side(nn.Module):
    """The neck of a linear head: maps side by side, through dropout and one batch norm."""

    def __init__(self, width: int, dropout: float, batch_norm: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.norm(self.dropout(beside(maps)))]


class Learner(nn.Module):
    """``forward(batch)`` gives the segmentor's losses."""

    def __init__(self, segmentor: Any) -> None:
        super().__init__()
        self.segmentor = segmentor

    def to(self, *args: Any, **more: Any) -> Learner:
        # mmengine's models tell their preprocessor the device here and nowhere else.
        self.segmentor.to(*args, **more)
        return self

    def forward(self, batch: dict[str, list[Any]]) -> dict[str, Tensor]:
        data = self.segmentor.data_preprocessor(batch, training=True)
        found = self.segmentor(**data, mode="loss")
        # Accuracies are reported beside the losses, and are none.
        return {name: value for name, value in found.items() if "loss" in name}


class Pipeline:
    """``samples[i]``: what mmsegmentation's ADE20K pipeline makes of an image and its mask."""

    def __init__(self, dataset: Any, size: int, scale: tuple[float, float], long: float) -> None:
        from mmcv.transforms import RandomResize
        from mmseg.datasets.transforms import PackSegInputs, PhotoMetricDistortion, RandomCrop, RandomFlip

        self.dataset = dataset
        self.void = void_of(len(dataset.classes))
        self.steps = (
            RandomResize(scale=_sides(size, long), ratio_range=scale, keep_ratio=True),
            RandomCrop(crop_size=(size, size), cat_max_ratio=FULL, ignore_index=self.void),
            RandomFlip(prob=0.5),
            PhotoMetricDistortion(),
            PackSegInputs(),
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        found = {
            **described(image_of(self.dataset, index)),
            "gt_seg_map": stored(self.dataset.mask(index), self.void),
            "seg_fields": ["gt_seg_map"],
        }
        for step in self.steps:
            found = step(found)
        return found


def described(image: Image.Image) -> dict[str, Any]:
    """An image as mmsegmentation's loader gives it: BGR."""
    pixels = np.ascontiguousarray(np.asarray(image)[:, :, ::-1])
    return {"img": pixels, "img_shape": pixels.shape[:2], "ori_shape": pixels.shape[:2], "img_path": ""}


def stored(mask: np.ndarray, void: int) -> np.ndarray:
    """Labels as mmsegmentation holds them: unsigned, ``void`` where nothing counts."""
    return np.where(mask < 0, void, mask).astype(np.uint8 if void == 255 else np.uint16)


def together(samples: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A batch: mmsegmentation's preprocessor stacks it."""
    return {name: [sample[name] for sample in samples] for name in ("inputs", "data_samples")}


class PublishedJob(Job):
    """One training and its test by mmsegmentation."""

    def engine(self) -> Engine:
        parts = [engine_of(name) for name in ("onedl-mmcv", "onedl-mmengine", "torch")]
        return engine_of("onedl-mmsegmentation", "mmseg+" + "+".join(f"{part.name} {part.version}" for part in parts))

    @property
    def collate(self) -> Collate | None:
        return together

    @property
    def void(self) -> int:
        return void_of(len(self.classes))

    def network(self) -> nn.Module:
        from mmseg.models import EncoderDecoder

        settings, backbone = self.task.settings, self.task.backbone
        assert backbone is not None
        size = settings["size"]
        multiple = max(backbone.card.strides, default=1)
        if size % multiple:
            raise BenchError(
                f"mmsegmentation crops squares of ade20k.size={size} pixels, and '{backbone.card.name}' reads "
                f"multiples of {multiple}: --set ade20k.size={max(1, round(size / multiple)) * multiple}"
            )
        maps: Maps
        if self.linear:
            maps = FrozenMaps(backbone, settings["layers"], spread=settings["blocks"] == "spread", size=size)
        else:
            maps = FourMaps(backbone, size=size)
            self.drop_paths(maps)
        with warnings.catch_warnings():
            # Advice on two classes and one logit: a softmax over two is what is wanted.
            warnings.simplefilter("ignore")
            segmentor = EncoderDecoder(
                backbone={"type": lambda: maps},
                **(self._linear(maps) if self.linear else self._upernet(maps)),
                data_preprocessor=self._preprocessor(maps),
                train_cfg={},
                test_cfg=_config(mode="slide", crop_size=(size, size), stride=(settings["stride"],) * 2),
            )
            _quietly(segmentor.init_weights)
        return Learner(segmentor)

    def _common(self) -> dict[str, Any]:
        return {
            "num_classes": len(self.classes), "norm_cfg": {"type": "BN", "requires_grad": True},
            "align_corners": False, "ignore_index": self.void, "dropout_ratio": self.task.settings["dropout"],
        }  # fmt: skip

    def _upernet(self, maps: Maps) -> dict[str, Any]:
        from mmseg.models.decode_heads import FCNHead, UPerHead
        from mmseg.models.losses import CrossEntropyLoss

        return {
            "decode_head": {
                "type": UPerHead, "in_channels": maps.channels, "in_index": [0, 1, 2, 3], "pool_scales": (1, 2, 3, 6),
                "channels": self.task.settings["width"], "loss_decode": {"type": CrossEntropyLoss, "loss_weight": 1.0},
                **self._common(),
            },
            "auxiliary_head": {
                "type": FCNHead, "in_channels": maps.channels[2], "in_index": 2, "channels": 256, "num_convs": 1,
                "concat_input": False, "loss_decode": {"type": CrossEntropyLoss, "loss_weight": AUXILIARY},
                **self._common(),
            },
        }  # fmt: skip

    def _linear(self, maps: Maps) -> dict[str, Any]:
        from mmseg.models.decode_heads import FCNHead
        from mmseg.models.losses import CrossEntropyLoss

        width = sum(maps.channels)
        return {
            "neck": {
                "type": Side, "width": width, "dropout": self.task.settings["dropout"],
                "batch_norm": self.task.settings["batch_norm"],
            },
            "decode_head": {
                "type": FCNHead, "in_channels": width, "in_index": 0, "channels": width, "num_convs": 0,
                "concat_input": False, "loss_decode": {"type": CrossEntropyLoss, "loss_weight": 1.0},
                **self._common(), "dropout_ratio": 0.0,
            },
        }  # fmt: skip

    def _preprocessor(self, maps: Maps) -> dict[str, Any]:
        from mmseg.models import SegDataPreProcessor

        return {
            "type": SegDataPreProcessor, "mean": [255 * v for v in self.transform.mean],
            "std": [255 * v for v in self.transform.std], "bgr_to_rgb": True, "pad_val": 0, "seg_pad_val": self.void,
            "size": (self.task.settings["size"],) * 2,
            "test_cfg": {"size": (maps.side,) * 2} if maps.side else {"size_divisor": maps.multiple},
        }  # fmt: skip

    def parts(self, network: Any) -> tuple[Maps, list[nn.Module]]:
        return network.segmentor.backbone, [m for name, m in network.segmentor.named_children() if name != "backbone"]

    def samples(self, dataset: Any) -> Samples:
        return Pipeline(dataset, self.task.settings["size"], self.scale, self.task.settings["long_side"])

    @cached_property
    def metric(self) -> Any:
        from mmseg.evaluation import IoUMetric

        metric = IoUMetric(ignore_index=self.void, iou_metrics=["mIoU"], prefix="ade20k")
        metric.dataset_meta = {"classes": self.classes}
        return metric

    def judge(self, network: Any, image: Any, truth: Any, overlap: Overlap) -> Any:
        from mmengine.structures import PixelData
        from mmseg.models import SegTTAModel

        views = self.views(image)
        data = {name: [[view[name]] for view in views] for name in ("inputs", "data_samples")}
        if self.several:
            with warnings.catch_warnings():
                # It says for every image that it adds an axis.
                warnings.simplefilter("ignore")
                (found,) = SegTTAModel(network.segmentor).test_step(data)
        else:
            (found,) = network.segmentor.test_step({name: value[0] for name, value in data.items()})
        found.gt_sem_seg = PixelData(data=torch.from_numpy(stored(truth, self.void).astype(np.int64))[None])
        self.metric.process({}, [found.to_dict()])
        right, _, predicted, labelled = self.metric.results.pop()
        overlap.add_areas(*(area.numpy() for area in (right, predicted, labelled)))
        return found.pred_sem_seg.data.squeeze(0).cpu().numpy()

    def views(self, image: Image.Image) -> list[dict[str, Any]]:
        """``image`` packed for the segmentor: once, or at every scale as it is and mirrored."""
        from mmcv.transforms import Resize
        from mmseg.datasets.transforms import PackSegInputs, RandomFlip

        size, made = self.task.settings["size"], []
        for ratio in self.ratios:
            sides = _sides(round(size * ratio), self.long)
            for mirrored in (0.0, 1.0) if self.several else (0.0,):
                found = Resize(scale=sides, keep_ratio=True)(described(image))
                with own_randomness():
                    made.append(PackSegInputs()(RandomFlip(prob=mirrored)(found)))
        return made


def _sides(short: int, long: float) -> tuple[int, int]:
    """(the longest that a long side may be, the short side); ``long`` 0: as mmsegmentation writes "any length"."""
    return round(long * short) if long else 99_999_999, short


def _config(**settings: Any) -> Any:
    from mmengine import ConfigDict

    return ConfigDict(settings)


def _quietly(work: Any) -> None:
    """mmengine reports every parameter's initialisation to a logger that writes to stdout."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        work()
    finally:
        logging.disable(before)
