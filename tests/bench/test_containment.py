"""Nothing is written but where the user said, nothing is read beside the data, and no socket is opened unasked."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from faulthelp import evaluation, run
from PIL import Image

import bench
from adapters import TABLE
from bench.data.opening import open_data
from bench.errors import BenchError

ASKS = [
    "timm:vit_small_patch16_224.dino", "timm:resnet18.a1_in1k", "torchvision:resnet18", "hf:nobody/nothing",
    "hf:facebook/dinov2-small", "hf:google-bert/bert-base-uncased", "openclip:ViT-B-32/laion2b_s34b_b79k",
    "openclip:RN50/openai", "openclip:ViT-B-32-quickgelu/metaclip_400m", "openclip:ViT-B-16-SigLIP/webli",
]  # fmt: skip
ASKS_FOR_DATA = [
    "hf:nobody/nothing", "torchvision:CIFAR10", "torchvision:Food101", "cifar10", "imagenet", "inat18", "glue:cola",
    "squad", "vtab1k:caltech101", "imagenet-a", "imagenet-c:fog-1", "corrupted:fog-1,hf:nobody/nothing",
    "ood:cifar10,hf:nobody/nothing", "webdataset:https://example.org/{000..003}.tar", "imagefolder:https://example.org/a",
]  # fmt: skip


class Opened(Exception):
    """A socket was opened."""


def no_sockets() -> None:
    """From now on a connection to anything but this machine's own files, or asking for a name, ends the process."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        # Processes of one machine talk through files.
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise Opened(str(address))
        connect(self, address)  # type: ignore[arg-type]

    def asked(*what: object, **more: object) -> None:
        raise Opened(str(what))

    socket.socket.connect = guarded  # type: ignore[method-assign, assignment]
    socket.getaddrinfo = socket.create_connection = asked  # type: ignore[assignment]


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def asked(*what: object, **more: object) -> None:
        raise Opened(str(what))

    for place in ("socket.socket.connect", "socket.getaddrinfo", "socket.create_connection"):
        monkeypatch.setattr(place, asked)
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    # What a user has in the caches of the hubs is none of these tests' business.
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"), raising=False)


@pytest.mark.parametrize("spec", ASKS)
def test_every_model_that_needs_the_network_is_refused_offline(spec: str, unplugged: None) -> None:
    if spec.startswith("openclip:"):
        pytest.importorskip("open_clip", reason="the extra openclip is not installed")
    with pytest.raises(BenchError, match="BENCH_OFFLINE"):
        bench.load(spec)


def test_no_kind_of_spec_is_left_out(unplugged: None) -> None:
    """Every scheme that can stand for something elsewhere is among those above; the others read local files alone."""
    local = {"path", "demo", "features"}
    assert {spec.partition(":")[0] for spec in ASKS} == set(TABLE) - local


@pytest.mark.parametrize("spec", ASKS_FOR_DATA)
def test_data_are_never_fetched(spec: str, unplugged: None) -> None:
    with pytest.raises(BenchError):
        open_data(spec)


def tree(*roots: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below: its size and its time of change."""
    found = {}
    for root in roots:
        for path in [root, *root.rglob("*")]:
            status = path.lstat()
            found[str(path)] = (status.st_size if path.is_file() else 0, status.st_mtime_ns)
    return found


def placed(folder: Path) -> None:
    os.chdir(folder)
    no_sockets()


def test_a_run_writes_only_what_it_was_told_to_and_opens_no_socket(tmp_path: Path) -> None:
    places = {name: tmp_path / "machine" / name for name in ("HOME", "cwd", "TMPDIR", "XDG_CACHE_HOME")}
    for place in places.values():
        place.mkdir(parents=True)
    variables = {name: str(place) for name, place in places.items() if name != "cwd"}
    fault = partial(placed, places["cwd"])
    before = tree(*places.values())
    ended = run(tmp_path / "said", evaluation(tmp_path / "runs", "--workers", "2"), fault, **variables)
    assert ended.code == 0, ended.error
    published = run(
        tmp_path / "said", ["publish", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "site")], fault,
        **variables,
    )  # fmt: skip
    assert published.code == 0, published.error
    assert tree(*places.values()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"machine", "said", "runs", "site"}
    assert {path.name for path in (tmp_path / "said").iterdir() if path.is_dir()} == {"cache"}


NAMES = ["../escaped.png", "/{outside}/escaped.png", "a/../../escaped.png", "link/escaped.png"]


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_members_of_a_tar_never_become_files(tmp_path: Path) -> None:
    inside, outside = tmp_path / "a" / "b", tmp_path / "outside"
    inside.mkdir(parents=True)
    outside.mkdir()
    with tarfile.open(inside / "train.tar", "w") as shard:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        shard.addfile(link)
        for i, name in enumerate(NAMES):
            stem = name.format(outside=str(outside).strip("/")).removesuffix(".png") + str(i)
            for end, content in ((".png", png()), (".cls", str(i % 2).encode())):
                member = tarfile.TarInfo(stem + end)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    (inside / "test.tar").write_bytes((inside / "train.tar").read_bytes())
    before = tree(inside, outside)
    splits = open_data(f"webdataset:{inside}")
    assert len(splits.train) == 4
    assert splits.train.fingerprint
    assert [splits.train.image(i).size for i in range(4)] == [(8, 8)] * 4
    assert tree(inside, outside) == before


def test_members_of_an_npz_never_become_files(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    for split in ("train", "test"):
        with zipfile.ZipFile(inside / f"{split}.npz", "w") as archive:
            for name, array in (("x", np.eye(6, 3, dtype=np.float32)), ("y", np.arange(6) % 2), ("../../escaped", 1)):
                stream = io.BytesIO()
                np.save(stream, array)
                archive.writestr(f"{name}.npy", stream.getvalue())
    before = tree(tmp_path)
    try:
        bench.run(f"features:{inside}", ["knn"], settings={"knn.k": 1})
    except BenchError as refusal:
        assert "escaped" in str(refusal)  # noqa: PT017
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["../secret.png", "a/../../../secret.png"])
def test_lists_of_files_cannot_lead_out_of_the_data(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data" / "cub"
    (root / "images" / "001.bird").mkdir(parents=True)
    (tmp_path / "data" / "secret.png").write_bytes(png())
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    for i in (1, 2):
        (root / "images" / "001.bird" / f"{i}.jpg").write_bytes(png())
    lists = {
        "images.txt": f"1 001.bird/1.jpg\n2 {name}\n",
        "image_class_labels.txt": "1 1\n2 1\n", "train_test_split.txt": "1 1\n2 0\n", "classes.txt": "1 001.bird\n",
    }  # fmt: skip
    for file, text in lists.items():
        (root / file).write_text(text)
    with pytest.raises(BenchError, match="leads out of"):
        open_data("cub").test.image(0)


def test_voc_lists_cannot_lead_out_of_the_data(tmp_path: Path) -> None:
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / "VOC2007" / part).mkdir(parents=True)
    for split in ("trainval", "test"):
        (tmp_path / "VOC2007" / "ImageSets" / "Main" / f"{split}.txt").write_text("../../secret\n")
    with pytest.raises(BenchError, match="leads out of the folder"):
        open_data(f"voc:{tmp_path / 'VOC2007'}")
