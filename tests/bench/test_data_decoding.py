"""One image: every mode becomes RGB; whatever cannot be decoded raises DecodeError with path and reason."""

import io
import pickle

import numpy as np
import pytest
from datahelp import encoded, pixels, put
from PIL import Image

from bench.data.decoding import decode
from bench.dataset import DecodeError


def saved(image: Image.Image, kind: str, **options) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


RGB = Image.fromarray(pixels(3, 16))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (RGB, "PNG"),
        (RGB.convert("L"), "PNG"),
        (RGB.convert("P"), "PNG"),
        (RGB.convert("RGBA"), "PNG"),
        (RGB.convert("LA"), "PNG"),
        (RGB.convert("1"), "PNG"),
        (RGB.convert("CMYK"), "JPEG"),
        (RGB.convert("YCbCr"), "JPEG"),
        (RGB, "BMP"),
        (RGB, "WEBP"),
        (RGB.convert("P"), "GIF"),
        (RGB, "TIFF"),
        (RGB, "PPM"),
    ],
)
def test_every_mode_becomes_rgb_as_pil_does_it(image, kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(saved(image, kind, **options), "x")
    assert found.mode == "RGB"
    assert found.tobytes() == Image.open(saved(image, kind, **options)).convert("RGB").tobytes()


def test_sixteen_bits_keep_their_upper_byte():
    wide = Image.fromarray(np.array([[0, 255, 256, 0x1234, 0xFFFF]], dtype=np.uint16))
    for kind in ("PNG", "TIFF"):
        assert np.asarray(decode(saved(wide, kind), "x"))[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]


def test_pixels_without_a_range_are_refused():
    with pytest.raises(DecodeError, match="no agreed range"):
        decode(saved(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"), "x")


def test_exif_orientation_is_left_alone():
    exif = Image.Exif()
    exif[274] = 6
    assert decode(saved(Image.new("RGB", (9, 5)), "JPEG", exif=exif), "x").size == (9, 5)


JPEG = encoded(1, "JPEG", 64)
PNG = encoded(1, "PNG", 64)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image"),
        (b"not an image at all" * 10, "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (JPEG[:20], "."),
        (PNG[:300] + bytes(40) + PNG[340:], "."),
    ],
)
def test_damage_is_named(tmp_path, content, reason):
    path = put(tmp_path / "bild é.jpg", content)
    for source in (path, io.BytesIO(content)):
        with pytest.raises(DecodeError, match=reason) as caught:
            decode(source, str(path))
        assert caught.value.path == str(path)
        assert "0x" not in caught.value.reason
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.path, again.reason) == (caught.value.path, caught.value.reason)


def test_a_decompression_bomb_is_refused_and_a_large_image_is_not(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DecodeError, match="decompression bomb"):
        decode(saved(Image.new("RGB", (15, 15)), "PNG"), "x")
    assert decode(saved(Image.new("RGB", (12, 12)), "PNG"), "x").size == (12, 12)


def test_a_missing_file_is_not_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "gone.png", "gone.png")
