"""Files of trainings over several processes: sharded, consolidated, flattened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from layouthelp import filled, values
from torch import Tensor

import bench
from adapters.reader import read
from bench.errors import BenchError

_SHARDED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import torch
import torch.distributed as dist
from torch.distributed import checkpoint
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = torch.load(f"{folder}/whole.pth", weights_only=True)
ways = [Shard(0), Shard(1), Replicate()]
sharded = {}
for i, (name, tensor) in enumerate(whole.items()):
    way = ways[i % 3] if tensor.ndim > 1 else Shard(0) if tensor.ndim else Replicate()
    sharded[name] = distribute_tensor(tensor, mesh, [way])
moments = {name: {"exp_avg": tensor * 2} for name, tensor in sharded.items()}
checkpoint.save({"model": sharded, "optimizer": {"state": moments}, "epoch": 3}, checkpoint_id=f"{folder}/step")
dist.barrier()
sys.stdout.flush()
os._exit(0)
"""


def _vit() -> dict[str, Tensor]:
    return dict(filled(timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32)).state_dict())


@pytest.mark.slow
def test_a_folder_that_two_processes_wrote(tmp_path: Path) -> None:
    torch.save(_vit() | {"odd": values("odd", (5, 3)), "scalar": torch.tensor(2.0)}, tmp_path / "whole.pth")
    command = [sys.executable, "-c", _SHARDED, str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, env=env) for rank in (0, 1)]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
    assert {path.name for path in (tmp_path / "step").glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}
    found = read(tmp_path / "step")
    whole = torch.load(tmp_path / "whole.pth", weights_only=True)
    assert found.kind == "torch.distributed.checkpoint folder"
    assert found.hazards == []
    assert found.content["model"].keys() == whole.keys()
    assert all(torch.equal(found.content["model"][name], tensor) for name, tensor in whole.items())
    (tmp_path / "step" / "__1_0.distcp").unlink()
    with pytest.raises(BenchError, match="lacks its part '__1_0.distcp'"):
        read(tmp_path / "step")


def test_deepspeed_s_consolidated_file(tmp_path: Path) -> None:
    weights = _vit()
    content = {
        "module": {f"module.{name}": tensor.half() for name, tensor in weights.items()},
        "optimizer": None,
        "param_shapes": [{name: tensor.shape for name, tensor in weights.items()}],
        "ds_config": {"train_batch_size": 8},
        "ds_version": "0.15",
    }
    torch.save(content, tmp_path / "mp_rank_00_model_states.pt")
    card = bench.load(tmp_path / "mp_rank_00_model_states.pt").card
    assert card.architecture.startswith("vit_tiny_patch16_224")
    assert card.weights_key == "module.module"
    content["module"] = {name: torch.empty(0) for name in content["module"]}
    torch.save(content, tmp_path / "mp_rank_00_model_states.pt")
    with pytest.raises(BenchError, match="ZeRO leaves at stage 3: .* zero_to_fp32.py"):
        bench.load(tmp_path / "mp_rank_00_model_states.pt", arch="vit_tiny_patch16_224")
    with pytest.raises(BenchError, match="a folder of DeepSpeed.*zero_to_fp32.py"):
        bench.load(tmp_path)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_names_of_wrapped_parts(wrapper: str, tmp_path: Path) -> None:
    weights = _vit()
    named = {}
    for name, tensor in weights.items():
        parts = name.split(".")
        inner = ".".join([*parts[:2], wrapper, *parts[2:]]) if parts[0] == "blocks" else name
        named[f"{wrapper}.{inner}"] = tensor
    torch.save({"model": named}, tmp_path / "net.pth")
    torch.save(weights, tmp_path / "plain.pth")
    assert bench.load(tmp_path / "net.pth").card.weight_digest == bench.load(tmp_path / "plain.pth").card.weight_digest


def test_flattened_parameters(tmp_path: Path) -> None:
    content = {f"_fsdp_wrapped_module.blocks.{i}._flat_param": torch.ones(999) for i in range(12)}
    torch.save({"model": content}, tmp_path / "net.pth")
    with pytest.raises(BenchError, match="FULL_STATE_DICT"):
        bench.load(tmp_path / "net.pth")
