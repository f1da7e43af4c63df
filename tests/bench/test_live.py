"""bench.wrap: the training loop finds everything as it left it."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import bench
from bench.card import Transform


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))


def test_modes_and_random_states_come_back_even_after_an_error():
    module = network().train()
    module[1].eval()
    before = [part.training for part in module.modules()]
    live = bench.wrap(module)
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    expected = (torch.rand(1), np.random.rand(), random.random())
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    with pytest.raises(RuntimeError, match="stop"), live.evaluating():
        assert not any(part.training for part in module.modules())
        torch.rand(5)
        np.random.rand(5)
        random.random()
        raise RuntimeError("stop")
    assert [part.training for part in module.modules()] == before
    assert (torch.rand(1), np.random.rand(), random.random()) == expected


def test_running_statistics_and_gradients_are_untouched():
    module = network().train()
    live = bench.wrap(module)
    statistics = module[1].running_mean.clone()
    with live.evaluating():
        out = live.features(torch.randn(2, 3, 8, 8))["pooled"]
    assert out.shape == (2, 4)
    assert not out.requires_grad
    assert torch.equal(module[1].running_mean, statistics)
    assert all(p.requires_grad for p in module.parameters())


def test_the_card_follows_the_weights():
    module = network()
    live = bench.wrap(module, step=10, epoch=0.5, name="mine")
    with live.evaluating():
        first = live.card
    with torch.no_grad():
        module[0].weight += 1
    with live.evaluating():
        second = live.card
    assert first.weight_digest != second.weight_digest
    assert (second.step, second.epoch, second.name) == (10, 0.5, "mine")


def test_ways_to_say_where_the_feature_is():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 5)

        def embed(self, x):
            return self.body(x.mean((2, 3)))

        def forward(self, x):
            return {"z": self.embed(x), "other": None}

    net, images = Net(), torch.randn(2, 3, 4, 4)
    want = net.embed(images)
    assert torch.equal(bench.wrap(net, pooled="embed").features(images)["pooled"], want)
    assert torch.equal(bench.wrap(net, pooled=lambda out: out["z"]).features(images)["pooled"], want)
    with pytest.raises(bench.BenchError, match="pooled="):
        bench.wrap(net).features(images)
    with pytest.raises(bench.BenchError, match="no method 'missing'"):
        bench.wrap(net, pooled="missing")


def test_two_features_of_one_module_are_two():
    class Net(nn.Module):
        def first(self, x):
            return x.mean((2, 3))

        second = first

    net = Net()
    ways = ["first", "second", lambda out: out[0], lambda out: out[1], None]
    names = [bench.wrap(net, pooled=way).card.feature for way in ways]
    assert len(set(names)) == len(ways)
    assert names[:2] == ["first", "second"]
    assert names == [bench.wrap(net, pooled=way).card.feature for way in ways]


def test_transforms():
    module = network()
    assert bench.wrap(module, transform={"resize": 32, "crop": 32}).card.transform == Transform(resize=32, crop=32)
    own = bench.wrap(module, transform=lambda image: torch.zeros(3, 8, 8))
    assert own.card.transform.custom
    assert " at 0x" not in own.card.transform.custom
    assert own.preprocess(None).shape == (3, 8, 8)
    with pytest.raises(bench.BenchError, match="transform"):
        bench.wrap(module, transform=3)


def test_wrappers_of_data_parallel_are_looked_through():
    module = network()
    assert bench.wrap(nn.DataParallel(module)).module is module


TRAINING = """
import os, pathlib, sys
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
import bench

dist.init_process_group("gloo")
torch.manual_seed(0)
layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten()
model = DistributedDataParallel(nn.Sequential(*layers))
optimiser = torch.optim.SGD(model.parameters(), lr=0.1)

def step():
    optimiser.zero_grad()
    model(torch.ones(4, 3, 16, 16) * (dist.get_rank() + 1)).square().mean().backward()
    optimiser.step()

step()
if dist.get_rank() == 0:
    live = bench.wrap(model, transform={"resize": 16, "crop": 16}, step=1)
    record = bench.run(live, ["knn"], "demo", limit=40, settings={"knn.k": 3}, workers=0)
    assert len(record.measurements) == 2
step()
weight = model.module[0].weight.detach().clone()
other = weight.clone()
dist.broadcast(other, 0)
assert torch.equal(weight, other)
pathlib.Path(sys.argv[1], f"rank{dist.get_rank()}").touch()
dist.barrier()
dist.destroy_process_group()
# torch's gloo threads now and then abort the interpreter's own shutdown ("terminate called without an active
# exception", with or without an evaluation): what is tested is over here.
os._exit(0)
"""


def test_one_rank_evaluates_within_a_process_group_while_the_others_go_on(tmp_path):
    import os
    import subprocess
    import sys
    from pathlib import Path

    script = tmp_path / "train.py"
    script.write_text(TRAINING)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("rank*")} == {"rank0", "rank1"}
