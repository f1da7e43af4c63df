"""What is no checkpoint is named for what it is, and nothing in a file is executed."""

import argparse
import gzip
import os

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


def test_nothing_is_executed(tmp_path, weights):
    canary = tmp_path / "canary"
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "payload": Payload(canary)}, path)
    with pytest.raises(BenchError, match="not executed"):
        read(path)
    assert not canary.exists()


def test_a_namespace_is_refused_with_the_remedy_and_trusted_when_asked(tmp_path, weights):
    path = tmp_path / "model.pth"
    torch.save({"model": weights, "args": argparse.Namespace(lr=1)}, path)
    with pytest.raises(BenchError, match=r"argparse\.Namespace.*--trust-checkpoint"):
        read(path)
    trusted = read(path, trust=True)
    assert "executed" in trusted.hazards[0]
    assert trusted.content["args"].lr == 1
