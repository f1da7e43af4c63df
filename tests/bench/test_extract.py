from __future__ import annotations

import io
import os
import signal
import subprocess
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from storehelp import Arrays, Tiny, extracted, reference
from torch import nn

from bench.backbone import Backbone
from bench.card import Transform
from bench.errors import BenchError
from bench.progress import Progress


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def changed(seed: int = 0, **card) -> Tiny:
    backbone = Tiny(seed)
    backbone.card = backbone.card.model_copy(update=card)
    return backbone


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("batch", "shard"), [(None, None), (7, 21), (1, 1), (100, 300), (16, 16)])
def test_features_are_the_networks_whatever_batch_shard_and_workers(workers, batch, shard):
    data = Arrays(61)
    got = extracted(data, features=("pooled", "logits"), workers=workers, batch=batch, shard=shard)
    for name in ("pooled", "logits"):
        np.testing.assert_allclose(got.features.array(name), reference(Tiny(), data, name), atol=1e-5)
    assert list(got.features.ids) == data.ids
    np.testing.assert_array_equal(got.features.labels, data.labels)
    assert (got.decoded, got.reused) == (61, 0)
    assert got.features.fingerprint == data.fingerprint
    assert got.features.classes == dict(enumerate("abcde"))
    assert got.features.widths == {"pooled": 24, "logits": 5}


def test_the_number_of_threads_changes_nothing_beyond_noise(monkeypatch, tmp_path):
    data, threads, arrays = Arrays(50), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            monkeypatch.setenv("BENCH_CACHE", str(tmp_path / str(count)))
            torch.set_num_threads(count)
            arrays.append(extracted(data).features.array("pooled"))
    finally:
        torch.set_num_threads(threads)
    for other in arrays[1:]:
        np.testing.assert_allclose(other, arrays[0], atol=1e-5)


def test_a_second_call_decodes_nothing_and_another_suite_finds_its_feature(tmp_path):
    data = Arrays(40, log=tmp_path / "log")
    first = extracted(data, batch=8, shard=16)
    again = extracted(data, features=("logits", "avg"))
    assert (first.decoded, again.decoded, again.reused) == (40, 0, 40)
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(40))
    np.testing.assert_allclose(again.features.array("logits"), reference(Tiny(), data, "logits"), atol=1e-5)
    assert again.folders == first.folders
    assert again.bytes > 40 * 29 * 4


@pytest.mark.parametrize(
    "other",
    [
        lambda: (Tiny(1), Arrays(30), "fp32"),
        lambda: (changed(transform=Transform(resize=None, crop=11)), Arrays(30), "fp32"),
        lambda: (changed(architecture="tiny_quickgelu"), Arrays(30), "fp32"),
        lambda: (changed(feature="cls"), Arrays(30), "fp32"),
        lambda: (Tiny(), Arrays(30, seed=1), "fp32"),
        lambda: (Tiny(), Arrays(30, split="test"), "fp32"),
        lambda: (Tiny(), Arrays(30), "bf16"),
    ],
)
def test_whatever_the_features_depend_on_makes_another_store(other):
    extracted(Arrays(30))
    backbone, data, precision = other()
    got = extracted(data, backbone, precision=precision)
    assert got.decoded == 30


def test_a_name_of_the_same_data_or_model_makes_no_other_store():
    extracted(Arrays(30))
    renamed = Arrays(30)
    renamed.name = "other"
    assert extracted(renamed, changed(name="other", spec="other")).decoded == 0


def test_bf16_is_what_autocast_computes():
    got = extracted(Arrays(20), precision="bf16").features.array("pooled")
    exact = reference(Tiny(), Arrays(20), "pooled")
    assert got.dtype == np.float32
    assert 1e-5 < np.abs(got - exact).max() < 0.05


class Tokens(Tiny):
    """Blocks with a class token: block i holds i + the mean colour."""

    calls = 0

    def blocks(self, images, n=4, norm=True):
        type(self).calls += 1
        base = images.mean(dim=(2, 3))
        return [(torch.stack([base + i, base + i + 2], dim=1), base - i) for i in range(n)]


def test_features_of_blocks_are_stored_beside_the_usual_ones_in_one_pass(tmp_path):
    data = Arrays(20, log=tmp_path / "log")
    got = extracted(data, Tokens(), features=("pooled", "blocks2.cls", "blocks3.avg"))
    assert got.features.widths == {"pooled": 24, "blocks2.cls": 6, "blocks3.avg": 9}
    wide, narrow = got.features.array("blocks3.avg"), got.features.array("blocks2.cls")
    np.testing.assert_allclose(wide[:, 3:6] - wide[:, :3], 1, atol=1e-5)
    # Of three blocks 0, 1, 2 the last two are 1 and 2.
    np.testing.assert_allclose(narrow[:, :3] + 1, wide[:, :3] - 1, atol=1e-5)
    np.testing.assert_allclose(narrow[:, :3] - narrow[:, 3:], 1, atol=1e-5)
    assert extracted(data, Tokens(), features=("avg", "blocks2.cls")).decoded == 0
    assert len((tmp_path / "log").read_text().split()) == 20


def test_a_feature_asked_for_later_is_extracted_alone():
    data = Arrays(20)
    first = extracted(data, Tokens())
    later = extracted(data, Tokens(), features=("pooled", "blocks2.cls"))
    assert later.decoded == 20
    assert len(later.folders) == 2
    assert first.folders[0] in later.folders
    new = next(folder for folder in later.folders if folder != first.folders[0])
    assert '"blocks2.cls"\n' in (new / "store.json").read_text()
    assert '"logits"\n' not in (new / "store.json").read_text()
    assert later.features.array("blocks2.cls").shape == (20, 6)


def test_equal_outputs_are_stored_once():
    got = extracted(Arrays(256), Tiny(width=512), batch=64)
    assert got.bytes < 256 * (512 + 5) * 4 + 5000
    np.testing.assert_array_equal(
        got.features.array("pooled"), extracted(Arrays(256), Tiny(width=512)).features.array("pooled")
    )


@pytest.mark.parametrize("rows", [1, 7, 16, 30, 61, 100])
def test_blocks_stream_what_array_holds(rows):
    data = Arrays(61, broken=(0, 20, 60))
    features = extracted(data, batch=4, shard=16, max_corrupt=0.1).features
    streamed = list(features.blocks("pooled", rows))
    assert [start for start, _ in streamed] == list(range(0, 58, rows))
    assert all(len(part) == rows for _, part in streamed[:-1])
    whole = features.array("pooled")
    np.testing.assert_array_equal(np.concatenate([part for _, part in streamed]), whole)
    np.testing.assert_array_equal(np.concatenate([part for _, part in features.blocks("pooled", rows)]), whole)
    assert not whole.flags.writeable
    assert features.array("pooled") is whole


# --- corrupt images ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_are_named_counted_and_left_out_every_time(workers):
    broken = (0, 9, 33, 34, 35, 36, 39)
    data, stream = Arrays(40, broken=broken), io.StringIO()
    for _ in range(2):
        got = extracted(data, batch=4, shard=8, workers=workers, max_corrupt=0.2, progress=Progress(stream, quiet=True))
        rows = [i for i in range(40) if i not in broken]
        assert [bad.sample for bad in got.corrupt] == list(broken)
        np.testing.assert_array_equal(got.features.labels, data.labels[rows])
        assert list(got.features.ids) == [data.ids[i] for i in rows]
        np.testing.assert_allclose(got.features.array("pooled"), reference(Tiny(), data, "pooled", rows), atol=1e-5)
        assert got.details()["corrupt"] == 7
        assert stream.getvalue().count("7 of the 40 images") == 1
        assert all(f"/data/train/{i}.png (cannot identify image file)" in stream.getvalue() for i in broken)
        stream.truncate(0)
        stream.seek(0)


def test_at_most_twenty_are_listed():
    stream = io.StringIO()
    extracted(Arrays(100, broken=tuple(range(50))), max_corrupt=0.9, progress=Progress(stream))
    assert stream.getvalue().count(".png") == 20
    assert "and 30 more" in stream.getvalue()


def test_too_many_corrupt_images_are_refused_now_and_from_the_store():
    data = Arrays(100, broken=(5, 50))
    for _ in range(2):
        with pytest.raises(BenchError, match=r"2 of the 100 images .* cannot be decoded.*5\.png.*50\.png"):
            extracted(data, batch=50)
    assert extracted(data, max_corrupt=0.02).features.array("pooled").shape == (98, 24)
    with pytest.raises(BenchError, match="2 of the 100 images"):
        extracted(data)


def test_a_set_without_one_sound_image_is_refused():
    with pytest.raises(BenchError, match="3 of the 3 images"):
        extracted(Arrays(3, broken=(0, 1, 2)), max_corrupt=1.0)


class Vanishing(Arrays):
    def image(self, index):
        if index == 30:
            Image.open(f"/nonexistent/{index}.png")
        return super().image(index)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_vanished_is_no_corrupt_image(workers):
    with pytest.raises(BenchError, match="train/30 cannot be read.*What was finished is kept"):
        extracted(Vanishing(64), batch=4, shard=8, workers=workers, max_corrupt=1.0)
    assert extracted(Arrays(64), batch=4, shard=8).decoded <= 64 - 24


# --- refusals ---------------------------------------------------------------------------------------------------------


class Poisoned(Tiny):
    def features(self, images):
        found = super().features(images)
        found["logits"][images.mean(dim=(1, 2, 3)) > self.threshold] = float("nan")
        return found


def test_features_that_are_not_finite_are_refused_with_count_and_first_sample(cache):
    data = Arrays(48)
    means = data.pixels.reshape(48, -1).mean(axis=1) / 255
    backbone = Poisoned()
    (worst,) = np.flatnonzero(means == means.max())
    mean, std = np.array(backbone.card.transform.mean), np.array(backbone.card.transform.std)
    channel = ((data.pixels / 255.0 - mean) / std).reshape(48, -1).mean(axis=1)
    (worst,) = np.flatnonzero(channel == channel.max())
    backbone.threshold = np.sort(channel)[-2:].mean()
    first = worst // 16 * 16
    with pytest.raises(
        BenchError,
        match=f"1 of the 16 features of samples {first} to {first + 15} .*infinite.*'logits' of sample train/{worst}:",
    ):
        extracted(data, backbone, batch=16, shard=16)
    names = {path.name for path in next((cache / "features").iterdir()).glob("*.safetensors")}
    assert f"{worst // 16:05d}.safetensors" not in names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": ("cls",)}, "no feature 'cls'; there are: avg, logits, pooled"),
        ({"features": ("poled",)}, "no feature 'poled'; nearest: pooled"),
        ({"features": ()}, "no feature was asked for"),
        ({"features": ("blocks4.cls",)}, "no token blocks"),
        ({"batch": 0}, "--batch must be at least 1"),
        ({"workers": -1}, "--workers at least 0"),
        ({"precision": "fp8"}, "unknown precision"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(BenchError, match=message):
        extracted(Arrays(8), **options)


def test_an_empty_set_and_a_training_network_are_refused():
    with pytest.raises(BenchError, match="noise train holds no images"):
        extracted(Arrays(0))
    backbone = Tiny()
    backbone.body.train()
    with pytest.raises(BenchError, match="training mode"):
        extracted(Arrays(8), backbone)


class Ragged(Arrays):
    def image(self, index):
        return super().image(index).resize((10 + index % 2, 12))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_are_refused(workers):
    with pytest.raises(BenchError, match="differ in size"):
        extracted(Ragged(80), changed(transform=Transform(resize=None, crop=None)), workers=workers)


class Flat(Tiny):
    def features(self, images):
        return {**super().features(images), "pooled": images.mean(dim=(2, 3)).sum(dim=1)}


def test_an_output_that_is_no_row_per_image_is_refused():
    with pytest.raises(BenchError, match=r"'pooled' of 'tiny' has shape \(8,\) for 8 images"):
        extracted(Arrays(8), Flat())


def test_a_file_where_the_cache_should_be_is_refused(cache):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file")
    with pytest.raises(BenchError, match="a part of that path is a file"):
        extracted(Arrays(8))


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A file system of 300 kB as the cache."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("a small file system needs the right to mount one")
    monkeypatch.setenv("BENCH_CACHE", str(place))
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_one_sentence_and_what_is_finished_is_kept(small_disk, monkeypatch, tmp_path):
    data, options = Arrays(400), {"batch": 16, "shard": 32}
    backbone = Tiny(width=400)
    with pytest.raises(BenchError, match="the disk is full.*what was finished is kept"):
        extracted(data, backbone, **options)
    kept = sorted(small_disk.rglob("*.safetensors"))
    assert 1 <= len(kept) < 13
    assert not list(small_disk.rglob(".partial-*"))
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    again = extracted(data, backbone, **options)
    assert again.reused == 32 * len(kept)
    np.testing.assert_allclose(again.features.array("pooled"), reference(backbone, data, "pooled"), atol=1e-5)


# --- memory -----------------------------------------------------------------------------------------------------------


class Hungry(Tiny):
    """Runs out of memory above ``most`` images, after the first ``grace`` calls."""

    most, grace, error = 4, 0, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    def features(self, images):
        self.grace -= 1
        if len(images) > self.most and self.grace < 0:
            raise self.error
        return super().features(images)


@pytest.mark.parametrize("grace", [0, 5])
@pytest.mark.parametrize(
    "error", [Hungry.error, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_halves_the_batch_and_goes_on(error, grace, tmp_path):
    data, stream, backbone = Arrays(100, log=tmp_path / "log"), io.StringIO(), Hungry()
    backbone.error, backbone.grace = error, grace
    got = extracted(data, backbone, batch=16, shard=32, progress=Progress(stream))
    np.testing.assert_allclose(got.features.array("pooled"), reference(Tiny(), data, "pooled"), atol=1e-5)
    assert len((tmp_path / "log").read_text().split()) == 100
    assert "16 images at once: going on with 8" in stream.getvalue()
    assert "8 images at once: going on with 4" in stream.getvalue()
    assert '"batch": 4' in (got.folders[0] / "store.json").read_text()


def test_one_image_that_does_not_fit_is_refused():
    backbone = Hungry()
    backbone.most = 0
    with pytest.raises(BenchError, match="does not fit into the memory of cpu with a single image"):
        extracted(Arrays(8), backbone)


def test_another_error_of_the_network_is_not_taken_for_lack_of_memory():
    backbone = Hungry()
    backbone.error = RuntimeError("size mismatch")
    with pytest.raises(RuntimeError, match="size mismatch"):
        extracted(Arrays(8), backbone)


def test_a_store_keeps_the_batch_it_was_begun_with(cache):
    data, stream = Arrays(64), io.StringIO()
    got = extracted(data, batch=8, shard=16)
    (got.folders[0] / "00002.safetensors").unlink()
    extracted(data, batch=5, progress=Progress(stream))
    assert "begun with batches of 8 and keeps them" in stream.getvalue()
    assert '"batch": 8' in (got.folders[0] / "store.json").read_text()


# --- workers ----------------------------------------------------------------------------------------------------------


class Deadly(Arrays):
    """Kills the process that decodes sample 70."""

    def image(self, index):
        if index == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().image(index)


def test_a_worker_that_dies_is_one_sentence_and_what_is_finished_is_kept():
    with pytest.raises(BenchError, match="a process that decodes images died"):
        extracted(Deadly(100), batch=4, shard=8, workers=2)
    assert extracted(Arrays(100), batch=4, shard=8).reused >= 40


def test_callers_random_state_is_untouched():
    backbone = Tiny()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    extracted(Arrays(80), backbone, workers=1)
    assert torch.equal(torch.rand(4), expected)


def test_no_process_or_thread_is_left_behind():
    import psutil

    before, threads = len(psutil.Process().children()), threading.active_count()
    extracted(Arrays(80), workers=2, batch=8)
    assert len(psutil.Process().children()) == before
    assert threading.active_count() <= threads


# --- live modules -----------------------------------------------------------------------------------------------------


def test_a_live_module_keeps_its_features_in_memory(cache):
    from bench.live import wrap

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7), nn.ReLU())
    live = wrap(module, transform=Transform(resize=None, crop=12))
    data = Arrays(70, broken=(4,))
    module.train()
    with live.evaluating():
        got = extracted(data, live, batch=8, shard=24, workers=1, max_corrupt=0.1)
        rows = [i for i in range(70) if i != 4]
        np.testing.assert_allclose(got.features.array("pooled"), reference(live, data, "pooled", rows), atol=1e-5)
    assert got.folders == []
    assert got.features.widths == {"pooled": 7}
    assert not cache.exists()
    assert isinstance(live, Backbone)
