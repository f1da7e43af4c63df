"""Hugging Face folders that transformers would read: what does not fit, what cannot be, and code that they name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hfhelp import loaded, made, saved, with_config
from torch import Tensor

import bench
from bench.errors import BenchError


@pytest.fixture
def regnet(tmp_path: Path) -> Path:
    return saved(made("regnet"), tmp_path / "model")


def _state(folder: Path, change: Any) -> Path:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def _drop(tensors: dict[str, Tensor]) -> None:
    del tensors[next(name for name in tensors if "stages.2" in name and name.endswith("convolution.weight"))]


def _turn(tensors: dict[str, Tensor]) -> None:
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4 and len(set(tensor.shape[:2])) == 2)
    tensors[name] = tensors[name].transpose(0, 1)


def _further(tensors: dict[str, Tensor]) -> None:
    tensors |= {n.replace("stages.3", "stages.4"): t.clone() for n, t in tensors.items() if "stages.3" in n}


def _broken(tensors: dict[str, Tensor]) -> None:
    next(tensor for tensor in tensors.values() if tensor.ndim == 4)[0] = float("nan")


def _whole_numbers(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        tensors[name] = tensor.to(torch.int8) if tensor.ndim == 4 else tensor


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_drop, r"fill \d+ of \d+ tensors of transformers' RegNetModel, missing .*its config.json and weights"),
        (_turn, r"fill \d+ of \d+ tensors of transformers' RegNetModel, wrong shape"),
        (_further, "without a place in it encoder.stages.4"),
        (_broken, "have NaN or infinite values"),
        (_whole_numbers, "int8"),
        (dict.clear, "weights|sets"),
    ],
)
def test_weights_that_do_not_fill_the_network_are_refused(regnet: Path, change: Any, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        bench.load(_state(regnet, change))


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"model_type": "no-such-network"}, "model type 'no-such-network', which transformers .* does not know"),
        (
            {"model_type": "mine", "auto_map": {"AutoModel": "modeling_mine.Mine"}},
            "brings code of its own for it, which is never run: give the weight file alone with --arch",
        ),
        ({"model_type": "gpt2"}, "is a 'gpt2' model, which has no network for images alone"),
        ({"depths": [1, 1, 1, 10**9]}, "states depths = 1000000000, which no network has"),
        ({"depths": [1, 1, 1, 1024]}, "far larger than the weights beside it|not of one model"),
        ({"depths": [1] * 5000}, "has a list of 5,000 entries"),
        ({"num_labels": 10**9}, "states num_labels = 1000000000"),
        ({"hidden_sizes": [10**9] * 4}, "states hidden_sizes = 1000000000"),
        ({"hidden_sizes": [10**400] * 4}, "states hidden_sizes = 1000"),
        ({"hidden_sizes": [100_000] * 4, "groups_width": 100_000}, "they are not of one model|can be"),
        ({"num_channels": 10**300}, "states num_channels|describes no"),
        ({"depths": "many"}, "describes no"),
        ({"hidden_sizes": {}}, "describes no"),
        ({"layer_type": "z"}, "fill|describes no"),
        ({"hidden_act": "no-such-function"}, "describes no network that RegNetModel can be"),
        ({"deep": json.loads("[" * 40 + "]" * 40)}, "nested over 16 deep"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(regnet: Path, stated: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        bench.load(with_config(regnet, **stated))


@pytest.mark.parametrize(
    "stated",
    [
        {"num_hidden_layers": 10**9}, {"num_hidden_layers": 1000, "hidden_size": 100_000}, {"image_size": 10**9},
        {"image_size": 2048, "patch_size": 1}, {"num_frames": 10**9}, {"tubelet_size": 0}, {"patch_size": 0},
        {"image_size": -32}, {"num_attention_heads": 0},
    ],
)  # fmt: skip
def test_a_hostile_table_of_positions_is_refused(tmp_path: Path, stated: dict[str, Any]) -> None:
    folder = with_config(saved(made("videomae"), tmp_path), **stated)
    with pytest.raises(BenchError, match=r"config\.json|do not fill|cannot be run"):
        bench.load(folder)


def test_code_that_a_folder_names_is_not_run(regnet: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (regnet / "modeling_mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with_config(
        regnet,
        auto_map={"AutoConfig": "modeling_mine.Config", "AutoModel": "modeling_mine.Model"},
        attn_implementation="somebody/kernels",
        quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True},
        torch_dtype="float16",
    )
    backbone = loaded(regnet)
    assert not ran.exists()
    assert any("auto_map" in text and "not executed" in text for text in backbone.card.hazards)
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())


def test_options_that_make_no_sense(regnet: Path) -> None:
    with pytest.raises(BenchError, match="--weights-key ema makes no sense"):
        bench.load(regnet, weights_key="ema")


def test_without_transformers_the_extra_is_named(regnet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BenchError, match=r"'regnet' network, .* pip install 'bench-representations\[huggingface\]'"):
        bench.load(regnet)
