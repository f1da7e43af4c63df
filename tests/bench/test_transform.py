"""The image transform: torchvision's numbers, PIL's pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T

from bench.card import IMAGENET_MEAN, IMAGENET_STD, Transform
from bench.errors import BenchError
from bench.transform import apply, resized, rgb


def _photo(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(300, 451), (451, 300), (28, 28), (200, 800)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_equals_the_torchvision_pipeline(size: tuple[int, int], interpolation: str) -> None:
    image = _photo(*size)
    reference = T.Compose(
        [
            T.Resize(256, T.InterpolationMode(interpolation)),
            T.CenterCrop(224),
            T.ToTensor(),
            T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )(image)
    ours = apply(Transform(interpolation=interpolation), image)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, reference)


def test_standardises_by_hand() -> None:
    image = Image.new("RGB", (8, 6), (255, 0, 51))
    out = apply(Transform(resize=None, crop=None, mean=(0.5, 0.5, 0.1), std=(0.5, 0.25, 0.1)), image)
    assert out.shape == (3, 6, 8)
    torch.testing.assert_close(out[:, 0, 0], torch.tensor([1.0, -2.0, 1.0]))


def test_a_pair_is_height_then_width() -> None:
    out = apply(Transform(resize=(32, 64), crop=None), _photo(100, 100))
    assert out.shape == (3, 32, 64)
    assert apply(Transform(resize=64, crop=(32, 48)), _photo(100, 100)).shape == (3, 32, 48)


def test_a_small_image_is_padded_to_the_crop() -> None:
    out = apply(Transform(resize=None, crop=10, mean=(0, 0, 0), std=(1, 1, 1)), Image.new("RGB", (4, 4), (255,) * 3))
    assert out.sum() == 3 * 16


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr", "I", "F", "RGBa"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    out = apply(Transform(), _photo(64, 64).convert("RGBA" if mode == "RGBa" else "RGB").convert(mode))
    assert out.shape == (3, 224, 224)
    assert torch.isfinite(out).all()


def test_gray_has_three_equal_channels() -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert np.array_equal(np.asarray(rgb(Image.fromarray(gray))), np.repeat(gray[..., None], 3, 2))


def test_sixteen_bit_gray_is_scaled_not_clipped() -> None:
    gray = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    assert np.asarray(rgb(Image.fromarray(gray)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_alpha_is_dropped_as_official_loaders_do() -> None:
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert np.asarray(rgb(clear))[0, 0].tolist() == [10, 20, 30]


def test_resized_keeps_the_ratio() -> None:
    at96 = resized(Transform(), 96)
    assert (at96.resize, at96.crop) == (110, 96)
    assert resized(Transform(), 224) == Transform()
    assert resized(Transform(resize=None, crop=32), 64).crop == 64
    assert resized(Transform(resize=(256, 256), crop=224), 448).resize == (512, 512)
    assert resized(Transform(resize=(256, 256), crop=None), 96).resize == (96, 96)
    with pytest.raises(BenchError, match="impossible"):
        resized(Transform(), 0)
