"""The transform of a preprocessor_config.json against the processor of transformers that wrote it, on a real image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adapters.processor import beyond, swaps, transform_beside, transform_of
from bench.transform import apply

transformers = pytest.importorskip("transformers", reason="the extra huggingface is not installed")

SMALL = {"shortest_edge": 40}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bit": ("BitImageProcessor", {"size": {"shortest_edge": 44}, "crop_size": 40}),
    "vit": ("ViTImageProcessor", {"size": {"height": 40, "width": 32}}),
    "deit": ("DeiTImageProcessor", {"size": 44, "crop_size": 40}),
    "convnext": ("ConvNextImageProcessor", {"size": SMALL, "crop_pct": 0.875}),
    "convnext, its own share": ("ConvNextImageProcessor", {"size": SMALL}),
    "convnext, warped": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "levit": ("LevitImageProcessor", {"size": SMALL, "crop_size": 40}),
    "poolformer": ("PoolFormerImageProcessor", {"size": SMALL, "crop_size": 40, "crop_pct": 0.9}),
    "efficientnet": ("EfficientNetImageProcessor", {"size": {"height": 40, "width": 40}}),
    "align": (
        "EfficientNetImageProcessor",
        {
            "size": {"height": 40, "width": 40}, "rescale_factor": 1 / 127.5, "rescale_offset": True,
            "do_normalize": False, "include_top": False,
        },
    ),
    "without normalising": ("ViTImageProcessor", {"size": {"height": 40, "width": 40}, "do_normalize": False}),
}  # fmt: skip


def _image() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (20, 27, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((80, 60), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_those_of_the_processor(tmp_path: Path, case: str) -> None:
    name, options = CASES[case]
    # The one that resizes with PIL; newer versions have another beside it.
    made = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    processor = made(**options, resample=3)
    processor.save_pretrained(tmp_path)
    transform = transform_beside(tmp_path / "preprocessor_config.json")
    assert transform is not None
    expected = processor(_image(), return_tensors="pt")["pixel_values"][0]
    found = apply(transform, _image())
    assert found.shape == expected.shape
    # Some round to eight bits after resizing and some do not.
    span = float(expected.max() - expected.min())
    assert float((found - expected).abs().max()) < 0.02 * span
    assert float((found - expected).abs().mean()) < 0.003 * span


def test_values_of_another_range_are_worked_in() -> None:
    """ViViT: pixels to [-1, 1], then standardised by 0.5."""
    said = {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 127.5, "offset": True}
    transform = transform_of(said)
    assert transform is not None
    pixels = torch.tensor([0.0, 100.0, 255.0])
    expected = ((pixels / 127.5 - 1) - 0.5) / 0.5
    torch.testing.assert_close((pixels / 255 - transform.mean[0]) / transform.std[0], expected)


def test_mobilevit_is_not_standardised_and_swaps_colours() -> None:
    hub = {
        "crop_size": 256, "do_center_crop": True, "do_flip_channel_order": True, "do_resize": True,
        "feature_extractor_type": "MobileViTFeatureExtractor", "resample": 2, "size": 288,
    }  # fmt: skip
    transform = transform_of(hub)
    assert transform is not None
    assert (transform.mean, transform.std, transform.crop) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 256)
    assert swaps(hub)
    assert beyond(hub) == []
    assert not swaps({**hub, "do_flip_channel_order": False})
    # Without a word the class swaps too.
    assert swaps({name: value for name, value in hub.items() if name != "do_flip_channel_order"})


@pytest.mark.parametrize("share", [0, -1, 2, "x"])
def test_a_share_that_cannot_be(tmp_path: Path, share: Any) -> None:
    said = {"size": SMALL, "crop_pct": share, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (tmp_path / "p.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match="crop_pct|convert"):
        transform_beside(tmp_path / "p.json")
