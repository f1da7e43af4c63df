"""Law 1: a file fills its network or is refused with the counts, the names and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from adapters import path as adapter
from adapters.timm_backbone import create
from bench.errors import BenchError

Weights = dict[str, Tensor]


def _weights(name: str, seed: int = 0, **arguments: Any) -> Weights:
    torch.manual_seed(seed)
    return create(name, pretrained=False, **arguments).state_dict()


@pytest.fixture(scope="module")
def resnet() -> Weights:
    return _weights("resnet18", num_classes=10)


@pytest.fixture(scope="module")
def vit() -> Weights:
    return _weights("vit_tiny_patch16_224", num_classes=0)


def _file(folder: Path, content: Any, name: str = "net.pth") -> str:
    torch.save(content, folder / name)
    return str(folder / name)


def _prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


WRAPPERS: dict[str, Callable[[Weights], Any]] = {
    "plain": lambda w: w,
    "state_dict": lambda w: {"state_dict": w, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "model": lambda w: {"model": w, "args": {"lr": 0.1}},
    "model_state_dict": lambda w: {"model_state_dict": w},
    "nested": lambda w: {"checkpoint": {"net": {"weights": w}}},
    "DDP": lambda w: _prefixed(w, "module."),
    "compiled": lambda w: {"state_dict": _prefixed(w, "_orig_mod.module.")},
    "backbone": lambda w: _prefixed(w, "backbone.") | {"other.weight": torch.ones(4, 4)},
    "never seen": lambda w: {"ckpt": _prefixed(w, "wrapper.my_net.trunk._feature.")},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("arch", ["resnet18", None])
def test_finds_the_network_in_any_wrapper(tmp_path: Path, resnet: Weights, wrapper: str, arch: str | None) -> None:
    backbone = adapter.load(_file(tmp_path, WRAPPERS[wrapper](resnet)), arch=arch)
    card = backbone.card
    assert card.architecture == "resnet18"
    assert card.coverage is not None
    assert (card.coverage.filled, card.coverage.total) == (100, 100)
    assert card.dims == {"pooled": 512, "avg": 512, "logits": 10}
    reference = create("resnet18", pretrained=False, num_classes=10)
    reference.load_state_dict(resnet)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.features(images)["logits"], reference.eval()(images))


def test_formats(tmp_path: Path, resnet: Weights) -> None:
    zipped = adapter.load(_file(tmp_path, resnet), arch="resnet18").card
    torch.save(resnet, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    legacy = adapter.load(str(tmp_path / "old.pt"), arch="resnet18").card
    save_file(resnet, tmp_path / "net.safetensors")
    safe = adapter.load(str(tmp_path / "net.safetensors"), arch="resnet18").card
    assert zipped.weight_digest == legacy.weight_digest == safe.weight_digest
    assert len({zipped.container, legacy.container, safe.container}) == 3


def test_without_classifier_there_are_no_logits(tmp_path: Path, resnet: Weights) -> None:
    card = adapter.load(_file(tmp_path, {k: v for k, v in resnet.items() if not k.startswith("fc")})).card
    assert set(card.dims) == {"pooled", "avg"}


def test_vit_at_another_size_and_with_the_norm_after_pooling(tmp_path: Path) -> None:
    weights = _weights("vit_tiny_patch16_224", img_size=96, global_pool="avg", num_classes=5)
    backbone = adapter.load(_file(tmp_path, weights), arch="vit_tiny_patch16_224")
    assert backbone.card.transform is not None
    assert backbone.card.transform.crop == 96
    assert backbone.card.feature == "avg"
    assert "fc_norm=True" in backbone.card.architecture


def test_the_evaluated_weights_are_chosen_and_the_choice_is_shown(tmp_path: Path, vit: Weights) -> None:
    other = _weights("vit_tiny_patch16_224", 1, num_classes=0)
    file = _file(tmp_path, {"student": _prefixed(other, "module.backbone."), "teacher": _prefixed(vit, "backbone.")})
    teacher = adapter.load(file)
    assert teacher.card.weights_key == "teacher.backbone"
    assert teacher.card.weight_sets == ["teacher", "student"]
    student = adapter.load(file, weights_key="student")
    assert student.card.weights_key == "student.module.backbone"
    assert student.card.weight_digest != teacher.card.weight_digest
    with pytest.raises(BenchError, match=re.escape("'ema' that fills")):
        adapter.load(file, weights_key="ema")


def test_a_damaged_teacher_is_not_replaced_by_the_student(tmp_path: Path, vit: Weights) -> None:
    both = {"teacher": _prefixed(_half(vit), "backbone."), "student": _prefixed(vit, "backbone.")}
    file = _file(tmp_path, both)
    with pytest.raises(BenchError, match=r"'teacher.backbone', which should be .* 78 of 150 .*--weights-key student"):
        adapter.load(file)
    assert adapter.load(file, weights_key="student").card.weights_key == "student.backbone"


def test_query_and_key_encoders(tmp_path: Path, resnet: Weights) -> None:
    other = _weights("resnet18", 1, num_classes=10)
    both = (
        _prefixed(other, "module.encoder_k.")
        | _prefixed(resnet, "module.encoder_q.")
        | {"module.queue": torch.ones(2, 9)}
    )
    card = adapter.load(_file(tmp_path, {"state_dict": both})).card
    assert card.weights_key == "state_dict.module.encoder_q"
    assert card.coverage is not None
    assert card.coverage.unused == ["module.encoder_k.*"]
    assert "module.queue" in " ".join(card.coverage.heads)


def test_leftovers_are_named(tmp_path: Path, resnet: Weights) -> None:
    extra = {"projector.0.weight": torch.ones(8, 8), "gadget.weight": torch.ones(3, 3)}
    card = adapter.load(_file(tmp_path, resnet | extra), arch="resnet18").card
    assert card.coverage is not None
    assert card.coverage.heads == ["projector.*"]
    assert card.coverage.unused == ["gadget.*"]


def _half(weights: Weights) -> Weights:
    return {k: v for k, v in weights.items() if not re.match(r"blocks\.([6-9]|1\d)\.", k)}


def _transposed(weights: Weights) -> Weights:
    return weights | {"blocks.3.mlp.fc1.weight": weights["blocks.3.mlp.fc1.weight"].T.contiguous()}


WRONG: dict[str, tuple[Callable[[Weights, Weights], Any], str | None, tuple[str, ...]]] = {
    "another architecture": (lambda r, v: r, "resnet34", ("100 of 180", "missing layer1.2", "--arch resnet18")),
    "another width": (lambda r, v: v, "vit_small_patch16_224", ("wrong shape", "vit_tiny_patch16_224 fits completely")),
    "half of the blocks": (lambda r, v: _half(v), "vit_tiny_patch16_224", ("missing blocks.6",)),
    "half of the blocks, inferred": (lambda r, v: _half(v), None, ("missing blocks.6",)),
    "transposed": (lambda r, v: _transposed(v), None, ("blocks.3.mlp.fc1.weight (file 192x768, network 768x192)",)),
    "a head alone": (
        lambda r, v: {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)},
        "resnet18",
        ("0 of 100",),
    ),
    "a head alone, inferred": (lambda r, v: {"module.linear.weight": torch.ones(9, 5)}, None, ("a head alone",)),
    "heads alone": (
        lambda r, v: {"module.fc.weight": torch.ones(10, 512), "module.fc.bias": torch.ones(10)},
        None,
        ("a head alone", "backbone's own file"),
    ),
    "not finite": (
        lambda r, v: r | {"bn1.bias": r["bn1.bias"] * float("nan")},
        None,
        ("net.pth: 1 of its tensors (bn1.bias) have NaN",),
    ),
    "an optimiser": (lambda r, v: {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}, None, ("no weights",)),
    "no weights": (lambda r, v: {"epoch": 3}, None, ("no weights",)),
    "unknown large part": (
        lambda r, v: _prefixed(r, "net.") | {"net.gadget.weight": torch.ones(3000, 3000)},
        "resnet18",
        ("net.gadget.*",),
    ),
    "registers": (
        lambda r, v: v | {"reg_token": torch.zeros(1, 4, 192)},
        "vit_tiny_patch16_224",
        ("without a place in it reg_token",),
    ),
    "no such architecture": (lambda r, v: r, "resnet19", ("resnet18",)),
    "nonsense": (lambda r, v: {f"a.{i}.w": torch.ones(3, i + 1) for i in range(9)}, None, ("--arch",)),
}


@pytest.mark.parametrize("case", WRONG)
def test_refusals(tmp_path: Path, resnet: Weights, vit: Weights, case: str) -> None:
    make, arch, words = WRONG[case]
    with pytest.raises(BenchError) as refusal:
        adapter.load(_file(tmp_path, make(resnet, vit)), arch=arch)
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    cases = {"empty.pth": b"", "page.pth": b"<html>Not found</html>", "cut.safetensors": b"\x10\0\0\0"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BenchError):
            adapter.load(str(tmp_path / name), arch="resnet18")
    with pytest.raises(BenchError, match="no file"):
        adapter.load(str(tmp_path / "nothing.pth"), arch="resnet18")


def test_nothing_is_executed(tmp_path: Path) -> None:
    import os

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path}/pwned",)

    file = _file(tmp_path, {"model": {"a": torch.ones(3)}, "x": Evil()})
    with pytest.raises(BenchError):
        adapter.load(file)
    assert not (tmp_path / "pwned").exists()


def test_arguments_of_the_architecture(tmp_path: Path, vit: Weights) -> None:
    file = _file(tmp_path, vit)
    usual = adapter.load(file, arch="vit_tiny_patch16_224")
    six = adapter.load(file, arch="vit_tiny_patch16_224(num_heads=6)")
    assert six.card.architecture == "vit_tiny_patch16_224(num_heads=6)"
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert not torch.allclose(usual.features(images)["pooled"], six.features(images)["pooled"])
    with pytest.raises(BenchError, match="plain values"):
        adapter.load(file, arch="vit_tiny_patch16_224(num_heads=__import__('os'))")


def test_batchnorm_statistics_are_needed_and_counters_are_not(tmp_path: Path, resnet: Weights) -> None:
    counters = {k: v for k, v in resnet.items() if not k.endswith("num_batches_tracked")}
    assert adapter.load(_file(tmp_path, counters), arch="resnet18").card.architecture == "resnet18"
    lacking = {k: v for k, v in resnet.items() if k != "layer2.0.bn1.running_var"}
    with pytest.raises(BenchError, match=r"99 of 100.*layer2.0.bn1.running_var"):
        adapter.load(_file(tmp_path, lacking), arch="resnet18")


def test_torchvision_architecture(tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(num_classes=4).eval()
    backbone = adapter.load(_file(tmp_path, network.state_dict()), arch="torchvision:mobilenet_v3_small")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(backbone.features(images)["logits"], network(images))
    assert backbone.card.dims == {"pooled": 1024, "avg": 576, "logits": 4}


def test_building_without_random_values_ends_whatever_the_memory_held():
    """torch's truncated normal draws again while a value is out of bounds; a draw that does nothing would never end."""
    from adapters.unfilled import without_random_init

    with without_random_init():
        weight = torch.full((4, 4), float("nan"))
        torch.nn.init.trunc_normal_(weight, std=0.02)
        torch.nn.init.trunc_normal_(weight, mean=5.0, std=1.0, a=-1.0, b=1.0)
    assert torch.isfinite(weight).all()
