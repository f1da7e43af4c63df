from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import bench
from bench.cache import cache_root
from bench.device import choose, float32_products, forward_mode, is_out_of_memory, precision_of
from bench.errors import BenchError


def test_cache_root_follows_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "c"))
    assert cache_root() == tmp_path / "c"
    monkeypatch.setenv("BENCH_CACHE", "~/c")
    assert cache_root().is_absolute()
    assert "~" not in str(cache_root())
    monkeypatch.delenv("BENCH_CACHE")
    assert cache_root().name == "bench"


def test_cpu_and_auto():
    assert choose("cpu") == torch.device("cpu")
    assert choose("auto").type in {"cpu", "cuda"}


@pytest.mark.parametrize("spec", ["gpu", "cuda:x", "cuda:-1", "", "CPU"])
def test_unknown_devices_are_refused(spec):
    with pytest.raises(BenchError, match="unknown device"):
        choose(spec)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose("auto") == torch.device("cpu")
    with pytest.raises(BenchError, match="torch finds none here"):
        choose("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose("auto") == torch.device("cuda", 0)
    assert choose("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(BenchError, match="cuda:0 to cuda:1"):
        choose("cuda:2")


def test_precision_belongs_to_the_protocol_unless_named():
    assert precision_of("auto") == "fp32"
    assert precision_of("auto", "bf16") == "bf16"
    assert precision_of("fp16") == "fp16"
    with pytest.raises(BenchError, match="unknown precision 'fp64'"):
        precision_of("fp64")


NEW_SWITCHES = """
import torch, warnings
from bench.device import float32_products, forward_mode
warnings.simplefilter("error")
matmul = torch.backends.cuda.matmul
matmul.fp32_precision = "tf32"
for mode in (float32_products(), forward_mode(torch.device("cpu"), "fp32")):
    with mode, float32_products():
        assert matmul.fp32_precision == "ieee"
    assert matmul.fp32_precision == "tf32"
"""


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="this PyTorch has one switch")
def test_a_process_that_uses_pytorchs_newer_switches():
    # In a process of its own: the two kinds of switches cannot be mixed again afterwards.
    subprocess.run([sys.executable, "-c", NEW_SWITCHES], check=True)


@pytest.mark.parametrize("outer", [False, True])
def test_a_training_inside_sees_its_own_steps(outer):
    """Autocast keeps copies of weights until the outermost context ends: it must not outlive a step."""
    layer, x = torch.nn.Linear(4, 1), torch.ones(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16) if outer else nullcontext(), float32_products():
        seen = []
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                seen.append(layer(x).sum())
            seen[-1].backward()
            with torch.no_grad():
                layer.weight += 1
    assert float(seen[1].detach() - seen[0].detach()) == pytest.approx(8, abs=0.2)


def test_suites_measure_in_float32_inside_a_training_loops_autocast(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        y = rng.integers(0, 3, 90)
        np.savez(tmp_path / f"{split}.npz", x=np.eye(3, 20)[y] + rng.standard_normal((90, 20)), y=y)

    def values():
        record = bench.run(f"features:{tmp_path}", ["knn", "linear"], settings={"knn.k": 5, "linear.points": 4})
        return [(m.metric, m.value, m.details.get("path")) for m in record.measurements]

    want = values()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert values() == want
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_fp32_is_float32_even_inside_an_autocast_and_switches_are_put_back():
    layer, x = torch.nn.Linear(8, 8), torch.randn(2, 8)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16), forward_mode(torch.device("cpu"), "fp32"):
            assert torch.get_float32_matmul_precision() == "highest"
            out = layer(x)
            assert out.dtype == torch.float32
            assert not out.requires_grad
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    with forward_mode(torch.device("cpu"), "bf16"):
        assert layer(x).dtype == torch.bfloat16


def test_out_of_memory_is_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_out_of_memory(RuntimeError("HIP out of memory"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))
