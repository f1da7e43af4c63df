"""`hf:ORG/NAME` from the hub's local cache, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bench


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's own client lays it out, with one small BEiT-like folder: a ViT of two blocks."""
    import timm
    from huggingface_hub import constants
    from safetensors.torch import save_file

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--lab--small" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "models--lab--small" / "refs").mkdir()
    (tmp_path / "models--lab--small" / "refs" / "main").write_text(commit)
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps({"architectures": ["X"]}))
    return tmp_path


def test_a_model_of_the_cache(cache: Path) -> None:
    model = bench.load("hf:lab/small", arch="resnet10t")
    assert model.card.name == "small"
    assert model.card.spec == "hf:lab/small"
    assert model.card.coverage is not None
    assert model.card.coverage.filled == model.card.coverage.total
    by_path = bench.load(next((cache / "models--lab--small/snapshots").iterdir()), arch="resnet10t")
    assert by_path.card.weight_digest == model.card.weight_digest


@pytest.mark.parametrize("spec", ["hf:lab/none", "hf:lab/small@v2"])
def test_what_is_not_there_is_not_asked_for_offline(cache: Path, spec: str) -> None:
    with pytest.raises(bench.BenchError, match="BENCH_OFFLINE is set and it is not in the hub's local cache"):
        bench.load(spec)


@pytest.mark.parametrize("spec", ["hf:", "hf:a/b/c", "hf:../../etc", "hf:a b", "hf:lab/../x"])
def test_no_name(spec: str) -> None:
    with pytest.raises(bench.BenchError):
        bench.load(spec)


def test_no_weights(cache: Path) -> None:
    next(cache.rglob("model.safetensors")).unlink()
    with pytest.raises(bench.BenchError, match="holds no safetensors"):
        bench.load("hf:lab/small")
