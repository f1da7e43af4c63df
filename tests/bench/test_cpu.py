from __future__ import annotations

import ctypes
import resource
import sys

import numpy as np
import pytest
import torch
from torch import nn

from bench.cpu import cpu_pass, kept_memory

CPU = torch.device("cpu")


def test_features_are_the_same_and_the_weights_are_given_back_as_they_were():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8)).eval()
    video = nn.Conv3d(3, 4, 3)
    network.add_module("video", nn.Identity())
    x = torch.randn(4, 3, 16, 16)
    before = [p.data for p in network.parameters()]
    with torch.no_grad():
        plain = network(x)
        with cpu_pass(nn.ModuleList([network, video]), CPU):
            assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
            inside = network(x)
    np.testing.assert_allclose(inside.numpy(), plain.numpy(), atol=1e-6)
    for parameter, data in zip(network.parameters(), before, strict=True):
        assert parameter.data.data_ptr() == data.data_ptr()
        assert parameter.is_contiguous()


def test_the_weights_are_given_back_after_an_error():
    network = nn.Conv2d(3, 8, 3)
    with pytest.raises(ZeroDivisionError), cpu_pass(network, CPU):
        raise ZeroDivisionError
    assert network.weight.is_contiguous()


def test_a_gpu_pass_is_left_alone():
    network = nn.Conv2d(3, 8, 3)
    with cpu_pass(network, torch.device("cuda")):
        assert network.weight.is_contiguous()


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="glibc's malloc is meant"
)
def test_large_blocks_are_reused_without_page_faults():
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.empty(20 << 20, dtype=torch.uint8).fill_(1)
            torch.empty(40 << 20, dtype=torch.uint8).fill_(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with kept_memory():
        faults()
        inside = faults()
    outside = faults()
    # A fault outside may give 4 KB or a huge page: 300 faults at least for ten times 60 MB.
    assert outside > 200
    assert inside < outside / 5
