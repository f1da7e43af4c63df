"""Wrong on purpose: each file is refused with one sentence that names the remedy, as a library and in a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from layouthelp import filled
from safetensors.torch import save_file
from torch import Tensor

import bench
from bench.errors import BenchError

Weights = dict[str, Tensor]
ROOT = Path(__file__).parents[2]
_LATE = tuple(f"blocks.{index}." for index in range(6, 12))


class Runs:
    """What a pickle that runs a command holds."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def _vit(name: str = "vit_tiny_patch16_224", **more: Any) -> Weights:
    return dict(filled(timm.create_model(name, num_classes=0, **{"img_size": 32, **more})).state_dict())


def _under(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _save(content: Any, file: Path) -> None:
    torch.save(content, file)


def _registers(file: Path) -> None:
    own = _vit("vit_small_patch14_reg4_dinov2", depth=2, embed_dim=64, num_heads=2, img_size=28)
    own["register_tokens"] = own.pop("reg_token")
    own["pos_embed"] = torch.cat([own["cls_token"] * 0, own["pos_embed"]], 1)
    _save(own, file)


def _optimiser(file: Path) -> None:
    network = torch.nn.Linear(3, 3)
    optimiser = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    _save(optimiser.state_dict(), file)


def _cut(file: Path) -> None:
    _save(_vit(), file)
    file.write_bytes(file.read_bytes()[:-50_000])


def _flipped(file: Path) -> None:
    _save(_vit(), file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def _cut_safetensors(file: Path) -> None:
    save_file(_vit(), file)
    file.write_bytes(file.read_bytes()[:-50_000])


def _transposed(file: Path) -> None:
    weights = _vit()
    _save(weights | {"blocks.3.mlp.fc1.weight": weights["blocks.3.mlp.fc1.weight"].T.contiguous()}, file)


# case -> (writes the file, what the user asks besides, words of the sentence)
CASES: dict[str, tuple[Callable[[Path], None], dict[str, str], tuple[str, ...]]] = {
    "registers, plain architecture": (
        _registers,
        {"arch": "vit_small_patch14_dinov2(depth=2, embed_dim=64, num_heads=2, img_size=28)"},
        ("reg_token", "fits completely: use --arch"),
    ),
    "a small network as a base one": (
        lambda file: _save(_vit(), file),
        {"arch": "vit_base_patch16_224"},
        ("wrong shape", "vit_tiny_patch16_224(img_size=32) fits completely: use --arch vit_tiny_patch16_224"),
    ),
    "a student where only a teacher is": (
        lambda file: _save({"teacher": _under(_vit(), "backbone.")}, file),
        {"weights_key": "student"},
        ("no weight set 'student'", "it has teacher.backbone"),
    ),
    "a linear classifier alone": (
        lambda file: _save({"state_dict": {"module.linear.weight": torch.ones(1000, 384)}}, file),
        {},
        ("a head alone (module.linear.weight)", "give the backbone's own file"),
    ),
    "half of the blocks": (
        lambda file: _save({n: t for n, t in _vit().items() if not n.startswith(_LATE)}, file),
        {},
        ("78 of 150", "missing blocks.6.norm1.weight", "(depth=6)"),
    ),
    "one tensor transposed": (
        _transposed,
        {},
        ("blocks.3.mlp.fc1.weight (file 192x768, network 768x192)", "--weights-key"),
    ),
    "an optimiser": (_optimiser, {}, ("no weights", "give the file with the model's state_dict")),
    "cut off": (_cut, {}, ("download or save it again",)),
    "a bit flipped": (_flipped, {}, ("is damaged", "download it again")),
    "safetensors cut off": (_cut_safetensors, {}, ("download it again",)),
    "empty": (lambda file: file.write_bytes(b"") and None, {}, ("is empty",)),
    "a web page": (
        lambda file: file.write_text("<!DOCTYPE html><html>404</html>") and None,
        {},
        ("a web page", "download it again"),
    ),
    "runs a command": (
        lambda file: _save({"model": _vit(), "x": Runs(file.with_name("canary"))}, file),
        {},
        ("system, which was not executed", "a source you trust"),
    ),
    "an architecture that nobody has": (
        lambda file: _save(_vit(), file),
        {"arch": "vit_tny_patch16_224"},
        ("no architecture 'vit_tny_patch16_224'; nearest: vit_tiny_patch16_224",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_one_sentence(case: str, tmp_path: Path) -> None:
    write, asked, words = CASES[case]
    write(tmp_path / "net.pth")
    with pytest.raises(BenchError) as refusal:
        bench.load(tmp_path / "net.pth", **asked)  # type: ignore[arg-type]
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "canary").exists()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_from_the_shell(case: str, tmp_path: Path) -> None:
    write, asked, words = CASES[case]
    write(tmp_path / "net.pth")
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    command = [sys.executable, "-m", "bench", "inspect", "--model", str(tmp_path / "net.pth"), "--json", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("bench: ")
    assert "Traceback" not in done.stderr
    flat = " ".join(done.stderr.split())
    assert all(" ".join(word.split()) in flat for word in words)
    assert not (tmp_path / "canary").exists()


def test_a_plain_pickle_is_trusted_when_asked(tmp_path: Path) -> None:
    import pickle

    weights = {name: tensor.numpy() for name, tensor in _vit().items()}
    (tmp_path / "net.pkl").write_bytes(pickle.dumps({"model": weights, "path": Path("x")}, protocol=4))
    safe, trusted = bench.load(tmp_path / "net.pkl").card, bench.load(tmp_path / "net.pkl", trust=True).card
    assert safe.weight_digest == trusted.weight_digest
    assert any("inert stand-in" in hazard for hazard in safe.hazards)
    assert trusted.hazards == ["--trust-checkpoint: Python's pickle executed what the file says"]


@pytest.mark.parametrize("new", [True, False])
def test_a_module_is_trusted_when_asked(new: bool, tmp_path: Path) -> None:
    network = filled(timm.create_model("resnet10t", num_classes=0))
    torch.save({"model": network}, tmp_path / "net.pth", _use_new_zipfile_serialization=new)
    safe, trusted = bench.load(tmp_path / "net.pth").card, bench.load(tmp_path / "net.pth", trust=True).card
    assert safe.weight_digest == trusted.weight_digest
