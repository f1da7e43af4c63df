"""Named sets: looked up under $BENCH_DATA, and when they are not there the sentence says where it looked."""

import numpy as np
import pytest
from PIL import Image

from bench.data.opening import open_data
from bench.errors import BenchError
from bench.protocol import cards
from bench.registry import table


def test_imagenet_is_a_folder_under_bench_data(tmp_path, monkeypatch):
    for split in ("train", "val"):
        for name in ("n01440764", "n01443537"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "a.png")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    splits = open_data("imagenet")
    assert (splits.train.name, splits.test.name, splits.test.split) == ("imagenet", "imagenet", "val")
    assert splits.train.classes == ("n01440764", "n01443537")


@pytest.mark.parametrize("name", ["imagenet", "cifar100", "pets"])
def test_a_set_that_is_not_there(name, tmp_path, monkeypatch):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    with pytest.raises(BenchError, match=r"BENCH_DATA is not set.*--data"):
        open_data(name)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(BenchError, match=str(tmp_path / name)):
        open_data(name)
    with pytest.raises(BenchError, match="takes no path"):
        open_data(f"{name}:/somewhere")


def test_a_folder_of_that_name_without_the_archive(tmp_path, monkeypatch):
    (tmp_path / "cifar100").mkdir()
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(BenchError, match="CIFAR100"):
        open_data("cifar100")


def test_every_protocols_published_set_can_be_named():
    assert {card.data for card in cards().values() if card.data} <= set(table("datasets"))
