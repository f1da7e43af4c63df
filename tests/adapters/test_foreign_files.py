"""Files that other frameworks and other CIFAR code left: JAX's transformers, DenseNet-BC under three sets of names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from layouthelp import close, filled, images
from torch import Tensor

import bench
from adapters.dialects import readings
from adapters.networks.cifar_densenet import CifarDenseNet

SMALL: dict[str, Any] = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}


def _jax(state: dict[str, np.ndarray], new: bool) -> dict[str, np.ndarray]:
    """A transformer of width 64 and two heads, as flax names and lays out its arrays."""
    attention, norm, mlp = ("_0", "_1", "_0") if new else ("_1", "_2", "_3")
    out = {
        "cls": state["cls_token"],
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for index in range(2):
        theirs, ours = f"Transformer/encoderblock_{index}/", f"blocks.{index}."
        for name, our in (("LayerNorm_0", "norm1"), (f"LayerNorm{norm}", "norm2")):
            out[f"{theirs}{name}/scale"] = state[f"{ours}{our}.weight"]
            out[f"{theirs}{name}/bias"] = state[f"{ours}{our}.bias"]
        way = f"{theirs}MultiHeadDotProductAttention{attention}/"
        weights = state[f"{ours}attn.qkv.weight"].reshape(3, 64, 64)
        biases = state[f"{ours}attn.qkv.bias"].reshape(3, 2, 32)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{way}{name}/kernel"] = weight.T.reshape(64, 2, 32)
            out[f"{way}{name}/bias"] = bias
        out[f"{way}out/kernel"] = state[f"{ours}attn.proj.weight"].T.reshape(2, 32, 64)
        out[f"{way}out/bias"] = state[f"{ours}attn.proj.bias"]
        for part in (0, 1):
            out[f"{theirs}MlpBlock{mlp}/Dense_{part}/kernel"] = state[f"{ours}mlp.fc{part + 1}.weight"].T
            out[f"{theirs}MlpBlock{mlp}/Dense_{part}/bias"] = state[f"{ours}mlp.fc{part + 1}.bias"]
    return out


@pytest.mark.parametrize(("new", "root"), [(False, ""), (True, "params/"), (False, "opt/target/")])
def test_jax_transformers(new: bool, root: str, tmp_path: Path) -> None:
    network = filled(timm.create_model("vit_small_patch16_224", num_classes=10, **SMALL)).requires_grad_(False)
    arrays = _jax({name: tensor.numpy() for name, tensor in network.state_dict().items()}, new)
    if not root:  # timm's own reader understands the arrays as these are meant
        np.savez(tmp_path / "theirs.npz", **arrays)  # type: ignore[arg-type]
        other = timm.create_model("vit_small_patch16_224", num_classes=10, **SMALL).eval().requires_grad_(False)
        other.load_pretrained(str(tmp_path / "theirs.npz"))
        assert close(other(images(32)), network(images(32)))
    np.savez(tmp_path / "jax.npz", **{root + name: array for name, array in arrays.items()})  # type: ignore[arg-type]
    inside = ", ".join(f"{name}={value!r}" for name, value in SMALL.items())
    backbone = bench.load(tmp_path / "jax.npz", arch=f"vit_small_patch16_224({inside})")
    out = backbone.features(images(32))
    assert backbone.card.layout == "JAX ViT, no prefix"
    assert close(out["pooled"], network.forward_features(images(32))[:, 0])
    assert close(out["logits"], network(images(32)))


def test_densenet_gives_the_numbers_of_bearpaw_s_code() -> None:
    network = filled(CifarDenseNet(depth=16, growth=4, num_classes=10))
    with torch.no_grad():
        logits = network(images(32))
    expected = torch.tensor(
        [[-0.47863168, -0.09436987, -0.17639256, -0.13069853], [-0.48016411, -0.0949446, -0.17641622, -0.13043264]]
    )
    assert (logits[:, :4] - expected).abs().max() < 1e-6


_NAMES = {
    "andreasveit": ((r"dense(\d)\.(.*)", r"block\1.layer.\2"), (r"bn\.(.*)", r"bn1.\1")),
    "gpleiss": (
        (r"conv1\.(.*)", r"features.conv0.\1"),
        (r"dense(\d)\.(\d+)\.bn(\d)\.(.*)", r"features.denseblock\1.denselayer<\2>.norm\3.\4"),
        (r"dense(\d)\.(\d+)\.conv(\d)\.(.*)", r"features.denseblock\1.denselayer<\2>.conv\3.\4"),
        (r"trans(\d)\.bn1\.(.*)", r"features.transition\1.norm.\2"),
        (r"trans(\d)\.conv1\.(.*)", r"features.transition\1.conv.\2"),
        (r"bn\.(.*)", r"features.norm_final.\1"),
        (r"fc\.(.*)", r"classifier.\1"),
    ),
}


@pytest.mark.parametrize("code", list(_NAMES))
def test_densenet_under_other_names(code: str) -> None:
    own = {name: tensor for name, tensor in CifarDenseNet(depth=16, growth=4).state_dict().items() if tensor.ndim}
    theirs: dict[str, Tensor] = {}
    for name, tensor in own.items():
        found = next((m.expand(to) for pattern, to in _NAMES[code] if (m := re.fullmatch(pattern, name))), name)
        theirs[re.sub(r"<(\d+)>", lambda m: str(int(m[1]) + 1), found)] = tensor
    read = dict(readings(theirs))["DenseNet-BC"]
    assert {name: tensor.data_ptr() for name, tensor in read.items()} == {
        name: tensor.data_ptr() for name, tensor in own.items()
    }
