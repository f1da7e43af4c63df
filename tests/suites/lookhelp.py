"""Tiny networks and images for what looks at both networks' maps."""

import timm
import torch
from PIL import Image

from adapters.timm_backbone import TimmBackbone
from bench.backbone import freeze
from bench.card import Card, Transform


def backbone(name, family="cnn", seed=0, size=32, classes=0, label_set=None, **more):
    """A timm network with random weights."""
    torch.manual_seed(seed)
    network = timm.create_model(name, num_classes=classes, **more)
    card = Card(
        name=f"{name}-{seed}", spec=f"timm:{name}", architecture=name, family=family, dims={}, feature="avg",
        transform=Transform(resize=size, crop=size), weight_digest="", classes=label_set,
    )  # fmt: skip
    return freeze(TimmBackbone(network, card))


def vit(seed=0, size=32, **more):
    return backbone("test_vit", "vit", seed, size, img_size=size, **more)


def pictures(root, rng, count=6):
    """Bright squares in one half or the other, 32 x 32: a folder per class, as `imagefolder:` reads it."""
    for split in ("train", "val"):
        for name, left in (("left", 2), ("right", 18)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 80, (32, 32, 3)).astype("uint8")
                top = int(rng.integers(2, 20))
                pixels[top : top + 10, left : left + 10] += 150
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return f"imagefolder:{root}"
