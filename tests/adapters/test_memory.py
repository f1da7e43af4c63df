"""Reading a file takes about its own size in memory: measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from layouthelp import filled
from torch import Tensor

from adapters.architecture import Architecture
from adapters.filling import filled as fill
from adapters.unfilled import without_parameters

# What the process holds before and at most while it reads the file: anonymous memory, pages of files left out.
_CODE = """
import json, sys, threading, time
sys.path.insert(0, {root!r})
import torch, timm, bench, adapters.path
from bench.api import load

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) * 1024

load({small!r})
before, most, done = anonymous(), 0, False

def watch():
    global most
    while not done:
        most = max(most, anonymous())
        time.sleep(0.002)

watcher = threading.Thread(target=watch)
watcher.start()
backbone = load({file!r}, arch={arch!r})
done = True
watcher.join()
print(json.dumps([before, max(most, anonymous())]))
"""


def _measured(file: Path, small: Path, arch: str) -> float:
    """Most memory while ``file`` is read, above what the process had before, in sizes of the file."""
    code = _CODE.format(root=str(Path(__file__).parents[2]), small=str(small), file=str(file), arch=arch)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    before, most = json.loads(done.stdout.splitlines()[-1])
    return float(most - before) / file.stat().st_size


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("training", [False, True])
def test_a_file_takes_about_its_own_size(kind: str, training: bool, tmp_path: Path) -> None:
    if kind == "safetensors" and training:
        pytest.skip("holds one weight set")
    small = tmp_path / "small.pth"
    torch.save(filled(timm.create_model("vit_tiny_patch16_224", num_classes=0)).state_dict(), small)
    state = filled(timm.create_model("vit_base_patch16_224", num_classes=0)).state_dict()
    file = tmp_path / "file"
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(state, file)
    else:
        moments = {n: {"exp_avg": t.clone(), "exp_avg_sq": t.clone()} for n, t in state.items()}
        content = {"model": state, **({"optimizer": {"state": moments}} if training else {})}
        torch.save(content, file, _use_new_zipfile_serialization=kind == "zip")
    del state
    share = _measured(file, small, "vit_base_patch16_224")
    print(f"{kind}{' with optimiser' if training else ''}: {share:.2f} times the file")
    # What the allocator keeps of freed records differs; a second copy would make it two.
    assert share < 1.6


def test_parameters_have_no_memory_until_they_are_filled_and_buffers_are_computed() -> None:
    architecture = Architecture("swin_tiny_patch4_window7_224")
    with without_parameters():
        network = architecture.build()
    assert all(parameter.is_meta for parameter in network.parameters())
    expected = dict(architecture.build().named_buffers())
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, expected[name]), name


def test_tensors_that_share_memory_fill_separate_parameters() -> None:
    architecture = Architecture("vit_tiny_patch16_224", (("depth", 2), ("img_size", 32), ("num_classes", 0)))
    shared = torch.full((192 * 768,), 0.5)
    tensors: dict[str, Tensor] = {}
    for name, shape in architecture.outline().needed.items():
        tensors[name] = shared[: shape.numel()].view(shape)
    network = fill(architecture, architecture.outline(), tensors, "net.pth")
    assert tensors == {}
    places = [parameter.untyped_storage().data_ptr() for parameter in network.parameters()]
    assert len(set(places)) == len(places)
    assert all(torch.equal(p, torch.full_like(p, 0.5)) and not p.requires_grad for p in network.parameters())
