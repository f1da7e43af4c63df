"""The fifteen corruptions of ImageNet-C by the library: what it makes, the same every time, and refusals."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from PIL import Image

from bench.data.corrupted import Corrupted
from bench.data.imagecorruptions import corrupt
from bench.data.opening import open_data
from bench.data.robustness import CORRUPTIONS
from bench.errors import BenchError


def photo(width: int = 48, height: int = 40) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def distance(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.fixture(scope="module")
def library():
    return pytest.importorskip("imagecorruptions", reason="the extra corruptions is not installed")


def test_the_fifteen_are_the_librarys(library):
    assert set(library.get_corruption_names()) == set(CORRUPTIONS)
    assert len(CORRUPTIONS) == 15


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_is_the_librarys_and_the_same_every_time(kind, library):
    image = photo()
    before = np.random.get_state()[1].copy()
    made = corrupt(image, kind, 3, 7)
    assert np.array_equal(np.random.get_state()[1], before), "the generator of everybody else went on"
    np.random.random(17)
    assert distance(made, corrupt(image, kind, 3, 7)) == 0
    assert made.size == image.size
    assert made.mode == "RGB"
    # Uncertain kinds differ from seed to seed; the others are what the library makes of them.
    other = corrupt(image, kind, 3, 8)
    if kind in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"):
        plain = Image.fromarray(library.corrupt(np.asarray(image), severity=3, corruption_name=kind))
        assert distance(made, other) == distance(made, plain) == 0
    else:
        assert distance(made, other) > 0
    assert distance(corrupt(image, kind, 5, 7), image) > 0.8 * distance(corrupt(image, kind, 1, 7), image) > 0


@pytest.mark.parametrize("size", [(32, 32), (33, 150), (260, 40)])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_images_of_every_shape(kind, size, library):
    image = photo(*size)
    for severity in (1, 5):
        made = corrupt(image, kind, severity)
        assert made.size == size
        assert distance(made, image) > 0


def test_what_the_library_fails_on_is_a_sentence(library, monkeypatch):
    monkeypatch.setattr(library, "corrupt", lambda *_, **__: 1 / 0)
    with pytest.raises(BenchError, match=r"fog fails on an image of 48 x 40 pixels \(ZeroDivisionError"):
        corrupt(photo(), "fog", 1)


def test_strengths_are_those_of_imagenet_c(library):
    grey = Image.new("RGB", (128, 128), (128, 128, 128))
    noise = np.asarray(corrupt(grey, "gaussian_noise", 1), dtype=float) / 255
    assert noise.std() == pytest.approx(0.08, rel=0.05)
    assert np.asarray(corrupt(grey, "brightness", 2))[0, 0, 0] == pytest.approx(128 + 0.2 * 255, abs=1)
    struck = (np.asarray(corrupt(grey, "impulse_noise", 4)) != 128).mean()
    assert struck == pytest.approx(0.17, rel=0.1)


def test_a_set_is_corrupted_and_says_by_what(library, tmp_path, monkeypatch):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                photo(40 + i).save(tmp_path / split / name / f"{i}.png")
    clean = open_data(f"imagefolder:{tmp_path}")
    made = open_data(f"imagecorruptions:snow-2,imagefolder:{tmp_path}")
    assert isinstance(made.test, Corrupted)
    assert made.train.fingerprint == clean.train.fingerprint
    assert made.test.labels.tolist() == clean.test.labels.tolist()
    assert distance(made.test.image(1), clean.test.image(1)) > 1
    others = [
        open_data(f"{what},imagefolder:{tmp_path}").test
        for what in ("imagecorruptions:contrast-3", "corrupted:contrast-3")
    ]
    assert len({made.test.fingerprint, clean.test.fingerprint, *(other.fingerprint for other in others)}) == 4
    # Another version of the library makes other images.
    monkeypatch.setattr("bench.data.imagecorruptions.version", lambda name: "9.9")
    assert open_data(f"imagecorruptions:snow-2,imagefolder:{tmp_path}").test.fingerprint != made.test.fingerprint


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("imagecorruptions:", "write imagecorruptions:gaussian_noise-3,demo"),
        ("imagecorruptions:fogg-3,demo", "nearest: fog"),
        ("imagecorruptions:fog-0,demo", "severities 1 to 5"),
        ("imagecorruptions:fog-1,corrupted:pixelate-1,demo", "corrupts what is corrupted"),
        ("corrupted:pixelate-1,imagecorruptions:fog-1,demo", "corrupts what is corrupted"),
        ("imagecorruptions:fog-1,demo", "takes images from 32 x 32 pixels up, and one is 28 x 28: use corrupted:"),
    ],
)
def test_refusals(spec, says, library):
    with pytest.raises(BenchError, match=says):
        open_data(spec)


def test_without_the_library_a_sentence(monkeypatch):
    real = builtins.__import__

    def absent(name, *more, **options):
        if name == "imagecorruptions":
            raise ImportError("No module named 'imagecorruptions'")
        return real(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(BenchError, match=r"pip install 'bench-representations\[corruptions\]', or use corrupted:KIND"):
        open_data("imagecorruptions:fog-1,demo")
