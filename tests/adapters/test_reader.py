"""What is no checkpoint is named for what it is, and nothing in a file is executed."""

import argparse
import gzip
import json
import os
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adapters.reader import read
from bench.errors import BenchError


@pytest.fixture
def weights():
    return {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2, dtype=torch.bfloat16)}


@pytest.mark.parametrize("kind", ["torch zip", "torch legacy pickle", "safetensors"])
def test_the_content_decides_not_the_name(tmp_path, weights, kind):
    path = tmp_path / "weights.bin"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "torch zip")
    found = read(path)
    assert found.kind == kind
    assert all(torch.equal(found.content[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (gzip.compress(b"x" * 100), "gzip"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "PNG"),
        (b'{"a": 1}', "text file"),
        (b"\x01\x02\x03\x04" * 20, "first bytes"),
        (b"PK\x03\x04" + b"\0" * 60, "cut off"),
        (b"\x80", "save or download it again"),
        (b"\x80\x04K\x01", "save or download it again"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, content, words):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(BenchError) as refusal:
        read(path)
    assert words in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("kind", ["torch zip", "torch legacy pickle", "safetensors"])
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_a_file_that_is_cut_off(tmp_path, weights, kind, cut):
    path = tmp_path / "model.pth"
    weights["big"] = torch.randn(100, 100)
    if kind == "safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "torch zip")
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    with pytest.raises(BenchError, match="again"):
        read(path)


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_is_executed(tmp_path, weights, new):
    canary = tmp_path / "canary"
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "payload": Payload(canary)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(BenchError, match="not executed"):
        read(path)
    assert not canary.exists()


@pytest.mark.parametrize("new", [True, False])
def test_a_namespace_is_replaced_and_named_and_trusted_when_asked(tmp_path, weights, new):
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "args": argparse.Namespace(lr=1)}, path, _use_new_zipfile_serialization=new)
    found = read(path)
    assert found.hazards == ["argparse.Namespace in the pickle: replaced by an inert stand-in, nothing executed"]
    assert found.content["args"].state == {"lr": 1}
    assert torch.equal(found.content["model"]["fc.weight"], weights["fc.weight"])
    trusted = read(path, trust=True)
    assert "executed what the file says" in trusted.hazards[0]
    assert trusted.content["args"].lr == 1


def test_a_lightning_checkpoint(tmp_path, weights):
    torch.save({"pytorch-lightning_version": "2.1", "state_dict": weights}, tmp_path / "last.ckpt")
    assert read(tmp_path / "last.ckpt").kind == "Lightning checkpoint, torch zip"


def test_a_torchscript_archive_gives_weights_by_name(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).half()
    torch.jit.save(torch.jit.script(network), tmp_path / "model.pt")
    found = read(tmp_path / "model.pt")
    assert found.kind == "TorchScript archive"
    assert "not compiled" in found.hazards[0]
    for name, value in network.state_dict().items():
        assert torch.equal(found.content[name], value)


def test_numpy_archives_of_numbers_only(tmp_path):
    kernel = np.arange(6, dtype=">f4").reshape(2, 3)
    np.savez(tmp_path / "vit.npz", **{"head/kernel": kernel, "scalar": np.float32(2)})
    found = read(tmp_path / "vit.npz")
    assert found.kind == "NumPy archive"
    assert found.content["head/kernel"].tolist() == kernel.tolist()
    assert found.content["scalar"].shape == ()
    np.savez(tmp_path / "bad.npz", a=np.array([Payload(tmp_path / "canary")], dtype=object))
    with pytest.raises(BenchError, match="pickled objects"):
        read(tmp_path / "bad.npz")
    assert not (tmp_path / "canary").exists()


def test_an_archive_that_would_unpack_without_measure(tmp_path):
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros(4_000_000))
    with pytest.raises(BenchError, match="unpacks to"):
        read(tmp_path / "zeros.npz")


def test_onnx_is_named(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\x12\x07pytorch" + b"\0" * 40)
    with pytest.raises(BenchError, match="ONNX"):
        read(tmp_path / "model.onnx")


def sharded(folder, weights, suffix, target=None):
    single = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    table = {}
    for index, (name, tensor) in enumerate(weights.items()):
        part = f"{single.split('.')[0]}-0000{index + 1}-of-00002.{suffix}"
        table[name] = part
        if suffix == "safetensors":
            save_file({name: tensor}, folder / part)
        else:
            torch.save({name: tensor}, folder / part)
    (folder / f"{single}.index.json").write_text(json.dumps({"weight_map": table | (target or {})}))
    return table


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_folder_of_shards(tmp_path, weights, suffix):
    table = sharded(tmp_path, weights, suffix)
    found = read(tmp_path)
    assert found.kind.startswith("Hugging Face folder, 2 shards")
    assert all(torch.equal(found.content[name], tensor) for name, tensor in weights.items())
    (tmp_path / table["fc.bias"]).unlink()
    with pytest.raises(BenchError, match="lacks its part"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["../outside.bin", "/etc/passwd", "..", "a/b.bin", 3, ""])
def test_a_shard_outside_the_folder(tmp_path, weights, name):
    (tmp_path / "inner").mkdir()
    torch.save(weights, tmp_path / "outside.bin")
    sharded(tmp_path / "inner", weights, "bin", {"fc.weight": name})
    with pytest.raises(BenchError, match="no file of the folder"):
        read(tmp_path / "inner")


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_that_are_links(tmp_path, weights, suffix):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "inner").mkdir()
    table = sharded(tmp_path / "inner", weights, suffix)
    shard = tmp_path / "inner" / table["fc.bias"]
    shard.rename(tmp_path / "inner" / "kept")
    shard.symlink_to("kept")
    assert read(tmp_path / "inner").content.keys() == weights.keys()
    shard.unlink()
    (tmp_path / "inner" / "kept").rename(tmp_path / "elsewhere" / "kept")
    shard.symlink_to(tmp_path / "elsewhere" / "kept")
    with pytest.raises(BenchError, match="leads out of its folder"):
        read(tmp_path / "inner")
    shard.unlink()
    shard.symlink_to(shard)
    with pytest.raises(BenchError, match="lacks its part"):
        read(tmp_path / "inner")


def test_links_only_within_one_repository_of_the_hub(tmp_path, weights):
    snapshot = tmp_path / "models--x" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    save_file(weights, tmp_path / "models--x" / "blobs" / "aa")
    (snapshot / "model.safetensors").symlink_to("../../blobs/aa")
    assert read(snapshot).content.keys() == weights.keys()
    save_file(weights, tmp_path / "elsewhere")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BenchError, match="leads out of its folder"):
        read(snapshot)


def test_a_folder_of_torch_distributed_checkpoint(tmp_path, weights):
    from torch.distributed import checkpoint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint.save({"model": weights, "epoch": 3}, checkpoint_id=tmp_path / "step", no_dist=True)
    found = read(tmp_path / "step")
    assert found.kind == "torch.distributed.checkpoint folder"
    assert found.hazards == []
    assert all(torch.equal(found.content["model"][name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_of_numpy_arrays(tmp_path, weights, protocol):
    import pickle

    weights = {name: tensor.float() for name, tensor in weights.items()}
    arrays = {name: tensor.numpy() for name, tensor in weights.items()}
    content = {"model": arrays | {"swapped": np.arange(4, dtype=">f4")}, "__author__": "someone"}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = read(tmp_path / "net.pkl")
    assert found.kind == "pickled NumPy arrays"
    assert found.content["__author__"] == "someone"
    assert found.content["model"].pop("swapped").tolist() == [0, 1, 2, 3]
    assert found.content["model"].keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(found.content["model"][name], tensor)


def test_a_pickle_of_something_else_is_refused(tmp_path):
    import pickle

    (tmp_path / "list.pkl").write_bytes(pickle.dumps([1, 2, 3], protocol=4))
    with pytest.raises(BenchError, match="nor a dictionary of arrays"):
        read(tmp_path / "list.pkl")
