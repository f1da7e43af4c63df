"""What segmentation learns from and how it looks at an image: crops, colours, windows, scales."""

import colorsys
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from densehelp import COLOURS
from PIL import Image
from torch import nn

from bench.card import Transform
from bench.data.opening import open_data
from suites.segmentation.colours import distorted, saturated, turned
from suites.segmentation.crops import Crops, fitted
from suites.segmentation.windows import predict, slide
from suites.training.feed import seed_all


def test_windows_equal_the_whole_image_where_they_must():
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 50, 70, generator=generator)
    wide = nn.Conv2d(3, 5, 9, padding=4)
    with torch.no_grad():
        # An image that fits into a window is seen whole, whatever the network.
        torch.testing.assert_close(slide(wide, image, 70, 40), wide(image))
        # A network that looks at one pixel at a time cannot tell windows from the whole.
        pointwise = nn.Conv2d(3, 5, 1)
        torch.testing.assert_close(slide(pointwise, image, 32, 20), pointwise(image))
        # Elsewhere the inner part of a window knows all it would know, and the rims differ.
        whole, windows = wide(image), slide(wide, image, 48, 48)
        torch.testing.assert_close(windows[..., 6:18, 6:18], whole[..., 6:18, 6:18])
        assert not torch.allclose(windows, whole)


@pytest.mark.parametrize(("side", "window", "stride"), [(100, 32, 20), (32, 32, 20), (33, 32, 31), (500, 64, 64)])
def test_windows_cover_every_pixel_and_end_at_the_border(side, window, stride):
    seen = []

    def logits(part):
        seen.append(part[0, 0, 0, 0].item())
        assert part.shape[3] == min(window, side)
        return part[:, :1]

    image = torch.arange(side, dtype=torch.float32).expand(1, 3, window, side)
    assert torch.equal(slide(logits, image, window, stride), image[:, :1])
    assert seen[0] == 0
    assert seen[-1] == max(side - window, 0)
    assert all(0 < b - a <= stride for a, b in pairwise(seen))


def test_prediction_is_of_the_image_as_it_is():
    image = Image.new("RGB", (60, 20), (255, 0, 0))
    image.paste((0, 255, 0), (30, 0, 60, 20))
    plain = Transform(mean=(0, 0, 0), std=(1, 1, 1))

    def colour(pixels):
        return torch.cat([pixels, torch.full_like(pixels[:, :20], -9)], dim=1)  # Red, green, blue, and classes beyond.

    for several in ({}, {"ratios": (0.5, 1.0, 1.5), "flip": True}):
        found = predict(colour, image, plain, size=16, stride=10, device=torch.device("cpu"), **several)
        assert found.shape == (20, 60)
        assert (found[:, :28] == 0).all()
        assert (found[:, 32:] == 1).all()


def test_scaled_sizes():
    assert fitted((512, 683), 512) == (512, 683)
    assert fitted((100, 50), 512) == (1024, 512)
    # 4 to 1 at most: the long side decides.
    assert fitted((1000, 100), 512) == (2048, 205)
    # DINOv2's multi-scale and DINOv3's heads: any length.
    assert fitted((1000, 100), 512, 0) == (5120, 512)


def test_saturation_and_hue_are_hsv_s():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 77  # Black and grey have no hue.
    for factor, steps in ((0.5, 7), (1.5, -18), (1.2, 17), (1.0, 0)):
        hsv = [colorsys.rgb_to_hsv(*colour) for colour in pixels.reshape(-1, 3) / 255]
        wanted = [colorsys.hsv_to_rgb(h, min(1, factor * s), v) for h, s, v in hsv]
        np.testing.assert_allclose(saturated(pixels, factor).reshape(-1, 3), 255 * np.array(wanted), atol=0.51)
        wanted = [colorsys.hsv_to_rgb((h + steps / 180) % 1, s, v) for h, s, v in hsv]
        np.testing.assert_allclose(turned(pixels, steps).reshape(-1, 3), 255 * np.array(wanted), atol=1.01)


def test_colours_are_distorted_as_mmsegmentation_does(monkeypatch):
    """Brightness is added, contrast multiplies, before saturation and hue or after them; channels stay where they
    are."""
    image = Image.fromarray(np.array([[[200, 100, 40], [10, 20, 30]]], dtype=np.uint8))

    def run(coins, numbers):
        coins, numbers = iter(coins), iter(numbers)
        with monkeypatch.context() as patch:
            patch.setattr(random, "random", lambda: 0.0 if next(coins) else 0.9)
            patch.setattr(random, "uniform", lambda low, high: low + (high - low) * next(numbers))
            patch.setattr(random, "randint", lambda low, high: low + round((high - low) * next(numbers)))
            found = np.asarray(distorted(image))
        assert next(coins, None) is None
        assert next(numbers, None) is None
        return found.tolist()

    assert run([0, 0, 0, 0, 0], []) == np.asarray(image).tolist()
    # Coins: brightness, contrast early or late, contrast, saturation, hue.
    assert run([1, 0, 0, 0, 0], [1.0]) == [[[232, 132, 72], [42, 52, 62]]]
    assert run([1, 0, 0, 0, 0], [0.0]) == [[[168, 68, 8], [0, 0, 0]]]
    assert run([0, 1, 1, 0, 0], [1.0]) == [[[255, 150, 60], [15, 30, 45]]]
    assert run([0, 0, 0, 0, 1], [0.0]) == [[[100, 50, 20], [5, 10, 15]]]
    # Saturation halved: 200 stays, 100 and 40 come halfway to it.
    assert run([0, 1, 0, 1, 0], [0.0]) == [[[200, 150, 120], [20, 25, 30]]]
    # Contrast before saturation is not contrast after it: 200 is cut at 255 first.
    assert run([0, 1, 1, 1, 0], [1.0, 0.0]) != run([0, 0, 1, 0, 1], [0.0, 1.0])
    draws = {tuple(np.asarray(distorted(image))[0, 1].tolist()) for _ in range(200)}
    assert len(draws) > 50


def test_crops_keep_image_and_mask_together(shapes):
    train = open_data(f"segfolder:{shapes}").train
    crops = Crops(train, Transform(mean=(0, 0, 0), std=(1, 1, 1)), 48, (0.5, 2.0))
    crops.recolour = lambda image: image
    colours = torch.tensor(list(COLOURS.values())) / 255
    seen, voids, padded = 0, 0, 0
    for index in range(len(train)):
        for seed in range(6):
            seed_all(seed)
            pixels, labels = crops[index]
            assert pixels.shape == (3, 48, 48)
            assert labels.shape == (48, 48)
            painted = labels > 0
            seen += int(painted.sum())
            voids += int((labels < 0).sum())
            padded += int((pixels.sum(0) == 0).sum())
            wanted = colours[labels[painted] - 1]
            wrong = (pixels.permute(1, 2, 0)[painted] - wanted).abs().amax(1) > 0.25
            assert wrong.float().mean() < 0.05
            assert (labels[pixels.sum(0) == 0] < 0).all()
    assert seen > 10_000
    assert voids > padded > 0
