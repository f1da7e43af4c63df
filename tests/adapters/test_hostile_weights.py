"""Files whose weights are not what their names promise: each is refused, none is read as another network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import filled, values
from torch import Tensor, nn

import bench
from adapters.weightsets import answers, averaged, shortened
from bench.errors import BenchError

Weights = dict[str, Tensor]
ONE = "blocks.3.mlp.fc1.weight"
ARCH = "vit_tiny_patch16_224(img_size=32)"


def _vit(gain: float = 1.0) -> Weights:
    network = filled(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32))
    return {name: gain * tensor for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def vit() -> Weights:
    return _vit()


def _under(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _with(weights: Weights, tensor: Any) -> Weights:
    return {**weights, ONE: tensor}


def _lora(weights: Weights, wrapped: bool) -> Weights:
    out: Weights = {}
    for name, tensor in weights.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if name.endswith("attn.qkv.weight"):
            out |= {f"{stem}.lora_A.default.weight": torch.ones(8, 192), f"{stem}.lora_B.default.weight": tensor[:, :8]}
            out |= {f"{stem}.base_layer.weight": tensor} if wrapped else {}
        elif wrapped:
            out[f"base_model.model.{name}"] = tensor
    return out


def _quantised(weights: Weights) -> Weights:
    out: Weights = {}
    for name, tensor in weights.items():
        out[name] = (tensor * 100).to(torch.int8) if tensor.ndim == 2 else tensor
        out |= {f"{name}_scale": torch.ones(1)} if tensor.ndim == 2 else {}
    return out


def _split(weights: Weights, rule: Callable[[int], bool]) -> Weights:
    return {f"module.{name}" if rule(i) else name: tensor for i, (name, tensor) in enumerate(weights.items())}


def _quietly(make: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def _optimiser(weights: Weights) -> Any:
    return {"state": {n: {"exp_avg": t, "exp_avg_sq": t} for n, t in weights.items()}, "param_groups": []}


CASES: dict[str, tuple[Callable[[Weights], Any], tuple[str, ...]]] = {
    "not a number": (lambda w: _with(w, w[ONE] * float("nan")), (ONE, "NaN", "download it again")),
    "infinite": (lambda w: _with(w, w[ONE] / 0), (ONE, "infinite")),
    "too large for float32": (lambda w: _with(w, w[ONE].double() * 1e300), (ONE, "infinite")),
    "nothing but zeros": (lambda w: {n: t * 0 for n, t in w.items()}, ("51 weight matrices are zero",)),
    "complex": (lambda w: _with(w, w[ONE].to(torch.complex64)), (ONE, "complex64", "before that conversion")),
    "a mask": (lambda w: _with(w, w[ONE] > 0), (ONE, "bool")),
    "8 bits": (lambda w: _with(w, (w[ONE] * 100).to(torch.int8)), (ONE, "int8", "quantised")),
    "8 bits with scales": (_quantised, ("quantised: give those before",)),
    "sparse": (lambda w: _with(w, w[ONE].to_sparse()), ("sparse", ONE, "save them dense")),
    "sparse by rows": (lambda w: _with(w, _quietly(w[ONE].to_sparse_csr)), ("sparse", ONE)),
    "without values": (lambda w: _with(w, w[ONE].to("meta")), ("meta", ONE)),
    "all without values": (lambda w: {n: t.to("meta") for n, t in w.items()}, ("150 of its tensors are meta",)),
    "quantised by torch": (
        lambda w: _with(w, _quietly(lambda: torch.quantize_per_tensor(w[ONE], 0.01, 0, torch.qint8))),
        ("quantised", "again"),
    ),
    "LoRA alone": (lambda w: _lora(w, False), ("LoRA adapters alone", "merge_and_unload")),
    "LoRA around the network": (lambda w: _lora(w, True), ("138 of 150", "merge_and_unload")),
    "LoRA beside the network": (
        lambda w: w | {"blocks.0.attn.qkv.lora_A.weight": torch.ones(8, 192)},
        ("lora_A", "merge_and_unload"),
    ),
    "weight normalisation": (
        lambda w: {n: t for n, t in w.items() if n != ONE} | {f"{ONE}_g": torch.ones(768, 1), f"{ONE}_v": w[ONE]},
        ("149 of 150", "remove_parametrizations"),
    ),
    "pruned by a mask": (
        lambda w: {n: t for n, t in w.items() if n != ONE} | {f"{ONE}_orig": w[ONE], f"{ONE}_mask": w[ONE]},
        ("149 of 150", "prune.remove"),
    ),
    "an optimiser's state by names": (_optimiser, ("an optimiser's state and no weights", "state_dict")),
    "flat optimiser state": (
        lambda w: {f"{n}.exp_avg": t for n, t in w.items()},
        ("an optimiser's state and no weights",),
    ),
    "moments under the network's names": (lambda w: {"m": w, "v": w, "step": 3}, ("no weights",)),
    "gradients": (lambda w: {"grads": w}, ("no weights",)),
    "a prefix on every second name": (lambda w: _split(w, lambda i: i % 2 == 1), ("75 of 150", "under 'module.'")),
    "a prefix on the first half": (lambda w: _split(w, lambda i: i < 75), ("75 of 150", "under no prefix")),
    "a block too many": (
        lambda w: w | {n.replace(".11.", ".12."): t for n, t in w.items() if n.startswith("blocks.11.")},
        ("without a place in it blocks.12.norm1.weight",),
    ),
    "two networks under their own names": (
        lambda w: {"net_a": w, "net_b": _vit(2)},
        ("2 different networks", "--weights-key net_a or net_b"),
    ),
    "two networks under prefixes": (
        lambda w: _under(w, "left.") | _under(_vit(2), "right."),
        ("2 different networks", "--weights-key left or right"),
    ),
    "a list of networks": (lambda w: [{"model": w}, {"model": _vit(2)}], ("--weights-key 0 or 1",)),
    "one network in two halves, another in the others": (
        lambda w: _split(w, lambda i: i < 75) | _split(_vit(2), lambda i: i >= 75),
        ("2 different networks", "--weights-key . or module"),
    ),
    "two networks under one prefix": (
        lambda w: w | timm.create_model("resnet18").state_dict(),
        ("too large unknown parts conv1.*",),
    ),
    "names without end": (lambda w: {"x" * 2000 + n: t for n, t in w.items()}, ("no weights",)),
    "numbers for names": (lambda w: dict(enumerate(w.values())), ("no weights", "state_dict")),
    "a list of tensors": (lambda w: list(w.values()), ("no weights",)),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(tmp_path: Path, vit: Weights, case: str) -> None:
    make, words = CASES[case]
    _quietly(lambda: torch.save(make(vit), tmp_path / "net.pth"))
    with pytest.raises(BenchError) as refusal:
        bench.load(tmp_path / "net.pth")
    for word in ("net.pth", *words):
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["key.weight", "query.bias"])
def test_parts_that_cannot_be_joined_are_named(tmp_path: Path, name: str) -> None:
    weights: Weights = {}
    for ours, tensor in _vit().items():
        if ".attn.qkv." in ours:
            stem = ours.replace("blocks.", "encoder.layer.").partition("attn.qkv")[0] + "attention.attention."
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                weights[f"{stem}{part}.{ours.rpartition('.')[2]}"] = piece
        elif ours.startswith("blocks."):
            theirs = ours.replace("blocks.", "encoder.layer.").replace("norm1", "layernorm_before")
            theirs = theirs.replace("norm2", "layernorm_after").replace("attn.proj", "attention.output.dense")
            weights[theirs.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")] = tensor
    whole = _vit()
    weights |= {f"layernorm.{kind}": whole[f"norm.{kind}"] for kind in ("weight", "bias")}
    weights |= {
        f"embeddings.patch_embeddings.projection.{k}": whole[f"patch_embed.proj.{k}"] for k in ("weight", "bias")
    }
    weights |= {"embeddings.cls_token": whole["cls_token"], "embeddings.position_embeddings": whole["pos_embed"]}
    torch.save(weights, tmp_path / "net.pth")
    assert bench.load(tmp_path / "net.pth").card.layout.startswith("Hugging Face ViT")
    broken = f"encoder.layer.4.attention.attention.{name}"
    weights[broken] = weights[broken][:100]
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(BenchError, match=r"net.pth: the weights fill .* of 150"):
        bench.load(tmp_path / "net.pth")


def test_negative_variances(tmp_path: Path) -> None:
    weights = filled(timm.create_model("resnet18", num_classes=0)).state_dict()
    weights["layer1.0.bn1.running_var"] *= -1
    torch.save(weights, tmp_path / "net.pth")
    with pytest.raises(BenchError, match=r"1 of its tensors \(layer1.0.bn1.running_var\) have negative"):
        bench.load(tmp_path / "net.pth")


@pytest.mark.parametrize("key", ["left", "right"])
def test_the_user_s_choice_among_equals(tmp_path: Path, vit: Weights, key: str) -> None:
    torch.save(_under(vit, "left.") | _under(_vit(2), "right."), tmp_path / "net.pth")
    card = bench.load(tmp_path / "net.pth", weights_key=key).card
    assert card.weights_key == key
    torch.save(vit if key == "left" else _vit(2), tmp_path / "alone.pth")
    assert card.weight_digest == bench.load(tmp_path / "alone.pth").card.weight_digest


def test_one_network_under_two_names_is_no_choice(tmp_path: Path, vit: Weights) -> None:
    torch.save(_under(vit, "net.") | _under({n: t.clone() for n, t in vit.items()}, "copy."), tmp_path / "net.pth")
    assert bench.load(tmp_path / "net.pth").card.weights_key == "net"


def test_the_top_level_has_a_key(tmp_path: Path, vit: Weights) -> None:
    torch.save(vit | _under(_vit(2), "ema_model."), tmp_path / "net.pth")
    assert bench.load(tmp_path / "net.pth").card.weights_key == "ema_model"
    top = bench.load(tmp_path / "net.pth", weights_key=".").card
    assert top.weights_key is None
    assert top.weight_sets == [".", "ema_model"]
    assert top.averages == ["ema_model"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_in_float32(tmp_path: Path, vit: Weights, dtype: torch.dtype) -> None:
    torch.save({name: tensor.to(dtype) for name, tensor in vit.items()}, tmp_path / "net.pth")
    backbone = bench.load(tmp_path / "net.pth")
    assert {tensor.dtype for tensor in backbone.state_dict().values()} == {torch.float32}
    expected = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32).eval()
    expected.load_state_dict({name: tensor.to(dtype).float() for name, tensor in vit.items()})
    pictures = values("pictures", (2, 3, 32, 32))
    with torch.no_grad():
        assert torch.equal(backbone.features(pictures)["cls"], expected.forward_features(pictures)[:, 0])


def test_keys_are_short_and_mean_one_set() -> None:
    labels = ["state_dict.module.encoder_q", "state_dict.module.encoder_k", ""]
    assert shortened(labels) == ["encoder_q", "encoder_k", "."]
    for label, key in zip(labels, shortened(labels), strict=True):
        assert [answers(other, key) for other in labels] == [other == label for other in labels]
    assert shortened(["teacher.backbone", "student.module.backbone"]) == ["teacher", "student"]
    assert shortened(["model", "model.net"]) == ["model", "net"]
    assert averaged("state_dict.model_ema.module")
    assert not averaged("state_dict.model")


class _Wrapper(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.net = inner
        self.register_buffer("passing", torch.ones(3), persistent=False)


@pytest.mark.parametrize("new", [True, False])
def test_a_whole_pickled_module_is_read_by_its_tensors(tmp_path: Path, new: bool) -> None:
    network = filled(timm.create_model("resnet18", num_classes=0))
    torch.save({"model": _Wrapper(network), "epoch": 1}, tmp_path / "module.pt", _use_new_zipfile_serialization=new)
    torch.save(network.state_dict(), tmp_path / "plain.pt")
    card = bench.load(tmp_path / "module.pt").card
    assert card.weights_key == "model.net"
    assert card.weight_digest == bench.load(tmp_path / "plain.pt").card.weight_digest
    assert card.hazards
    assert all("nothing executed" in hazard for hazard in card.hazards)
