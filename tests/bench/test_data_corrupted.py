"""Corruptions made as images are read: the same every time, stronger with severity, and nothing else changed."""

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.corrupted import STRENGTHS, corrupt
from bench.data.opening import limited, open_data
from bench.errors import BenchError


def photo(side=64, seed=0):
    """Smooth shapes with an edge: noise alone would hide a blur."""
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)).copy()
    image[: side // 2, side // 2 :] = (200, 30, 60)
    return Image.fromarray(image)


def distance(a, b):
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("kind", STRENGTHS)
def test_a_corruption_grows_with_its_severity_and_is_the_same_every_time(kind):
    image = photo()
    state = torch.random.get_rng_state()
    changed = [corrupt(image, kind, severity, 7) for severity in range(1, 6)]
    assert torch.equal(state, torch.random.get_rng_state())
    assert {one.size for one in changed} == {image.size}
    assert {one.mode for one in changed} == {"RGB"}
    far = [distance(image, one) for one in changed]
    assert far[0] > 0.05
    assert far[4] > 1.2 * far[0]
    assert distance(changed[2], corrupt(image, kind, 3, 7)) == 0
    if kind in ("gaussian_noise", "elastic_transform"):
        assert distance(changed[2], corrupt(image, kind, 3, 8)) > 0


def test_what_each_strength_means():
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    noise = np.asarray(corrupt(grey, "gaussian_noise", 1), dtype=float) / 255
    assert noise.std() == pytest.approx(0.08, rel=0.05)
    assert noise.mean() == pytest.approx(128 / 255, abs=0.01)
    assert np.asarray(corrupt(grey, "brightness", 2))[0, 0, 0] == pytest.approx(128 * 1.4, abs=1)
    assert distance(corrupt(photo(), "saturate", 5), corrupt(photo(), "saturate", 5).convert("L").convert("RGB")) < 1
    # Six tenths of 50 pixels are 30 blocks.
    assert len(np.unique(np.asarray(corrupt(photo(50), "pixelate", 1)).reshape(50, -1), axis=0)) <= 30
    # The mean stays and the spread shrinks to four tenths.
    ratio = np.asarray(corrupt(photo(), "contrast", 1), dtype=float).std() / np.asarray(photo(), dtype=float).std()
    assert ratio < 0.6


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (5, 40)])
def test_tiny_images_are_corrupted_too(kind, size):
    assert corrupt(Image.new("L", size, 99), kind, 5).size == size


def test_only_the_test_split_is_corrupted_and_its_fingerprint_says_so():
    clean, made = open_data("demo"), open_data("corrupted:jpeg_compression-3,demo")
    assert made.train.fingerprint == clean.train.fingerprint
    assert made.test.labels.tolist() == clean.test.labels.tolist()
    assert made.test.name == "demo-jpeg_compression-3"
    others = [open_data(f"corrupted:{what},demo").test for what in ("jpeg_compression-4", "pixelate-3")]
    assert len({clean.test.fingerprint, made.test.fingerprint, *(other.fingerprint for other in others)}) == 4
    # A part of the set shows the images of the whole.
    part = limited(open_data("corrupted:gaussian_noise-2,demo").test, 30)
    whole = open_data("corrupted:gaussian_noise-2,demo").test
    index = whole.ids.index(part.ids[17])
    assert distance(part.image(17), whole.image(index)) == 0


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("corrupted:", "write corrupted:gaussian_noise-3,demo"),
        ("corrupted:gausian_noise-3,demo", "nearest: gaussian_noise"),
        ("corrupted:gaussian_noise-6,demo", "severities 1 to 5"),
        ("corrupted:gaussian_noise-3", "of a data set"),
        ("corrupted:pixelate-1,corrupted:pixelate-1,demo", "corrupts what is corrupted"),
        ("corrupted:pixelate-1,nothing", "unknown data 'nothing'"),
    ],
)
def test_refusals(spec, says):
    with pytest.raises(BenchError, match=says):
        open_data(spec)
