"""The images of a fine-tuning: augmented for training, through the model's own transform for the test."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bench.dataset import Dataset, DecodeError
from bench.errors import BenchError
from bench.modality import noun_of
from bench.transform import rgb

if TYPE_CHECKING:
    from PIL import Image

    from bench.backbone import Backbone
    from bench.card import Transform


class TrainingImages:
    """``samples[i]``: (image float32 [3, H, W] or tokens [3, L], label, whether it replaces one that cannot be read).

    A label is a class (int64), or the number to learn (float64).
    """

    def __init__(self, dataset: Dataset, labels: np.ndarray, augment: Callable[[Any], Tensor]) -> None:
        self.dataset = dataset
        self.labels = labels
        self.augment = augment
        self.noun = noun_of(dataset)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int | float, bool]:
        # The next image that can be decoded stands in, so that batches keep their size.
        for offset in range(len(self)):
            at = (index + offset) % len(self)
            try:
                return self.augment(self.dataset.image(at)), self.labels[at].item(), offset > 0
            except DecodeError as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
                    raise BenchError(f"{error.path} cannot be read ({error.reason})") from error
            except OSError as error:
                raise BenchError(f"{self.dataset.ids[at]} cannot be read ({error})") from error
        raise BenchError(f"none of the {self.noun} of {self.dataset.name} {self.dataset.split} can be decoded")


def augmentation(settings: dict[str, Any], backbone: Backbone) -> Callable[[Image.Image], Tensor]:
    """The training transform of a card at the model's input size, interpolation, mean and deviation.

    ``resized``: RandomResizedCrop, flip, RandAugment, normalisation, RandomErasing, as timm puts them together.
    ``padded``: the image at input size, padded by an eighth, cropped at random, flipped. ``none``: as for the test.
    Raises `BenchError` for a model whose input size is not fixed, and for a policy that timm does not read.
    """
    if settings["crop"] == "none":
        return _Untouched(backbone)
    transform = backbone.card.transform
    size = _size(transform)
    if transform is None or size is None or transform.custom is not None:
        raise BenchError(
            f"'{backbone.card.name}' has no fixed input size, which random crops need: --set finetune.crop=none"
        )
    if settings["crop"] == "padded":
        return _padded(settings, transform, size)
    from timm.data import create_transform

    try:
        made = create_transform(
            input_size=(3, *size), is_training=True, use_prefetcher=False, scale=(settings["least_area"], 1.0),
            hflip=0.5 if settings["flip"] else 0.0, color_jitter=None,
            auto_augment=settings["auto_augment"] or None, interpolation=transform.interpolation,
            mean=transform.mean, std=transform.std, re_prob=settings["erasing"], re_mode="pixel", re_count=1,
        )  # fmt: skip
    except (AssertionError, ValueError, KeyError, NotImplementedError) as error:
        raise BenchError(
            f"finetune.auto_augment is a policy of timm's, like rand-m9-mstd0.5-inc1, not "
            f"'{settings['auto_augment']}': {error or type(error).__name__}"
        ) from None
    return _Applied(made)


def mixing(settings: dict[str, Any], classes: int) -> Any:
    """timm's Mixup of whole batches, or None where the card has neither mixup nor cutmix."""
    if settings["mixup"] == 0 and settings["cutmix"] == 0:
        return None
    from timm.data import Mixup

    return Mixup(
        mixup_alpha=settings["mixup"], cutmix_alpha=settings["cutmix"], prob=1.0, switch_prob=0.5, mode="batch",
        label_smoothing=settings["smoothing"], num_classes=classes,
    )  # fmt: skip


class _Applied:
    """A transform of RGB images."""

    def __init__(self, transform: Callable[[Any], Tensor]) -> None:
        self.transform = transform

    def __call__(self, image: Image.Image) -> Tensor:
        made = self.transform(rgb(image))
        return torch.as_tensor(made, dtype=torch.float32)


class _Untouched:
    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone

    def __call__(self, image: Image.Image) -> Tensor:
        return self.backbone.preprocess(image)


def _padded(settings: dict[str, Any], transform: Transform, size: tuple[int, int]) -> _Applied:
    from torchvision import transforms as T

    parts = [
        T.Resize(size, T.InterpolationMode(transform.interpolation)),
        T.RandomCrop(size, padding=max(1, max(size) // 8)),
        *([T.RandomHorizontalFlip()] if settings["flip"] else []),
        T.ToTensor(),
        T.Normalize(transform.mean, transform.std),
        *([T.RandomErasing(settings["erasing"])] if settings["erasing"] else []),
    ]
    return _Applied(T.Compose(parts))


def _size(transform: Transform | None) -> tuple[int, int] | None:
    if transform is None:
        return None
    size = transform.crop
    if size is None and not isinstance(transform.resize, int):
        size = transform.resize
    return (size, size) if isinstance(size, int) else size
