"""Networks that cannot be built without memory for their parameters are filled like all others."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from adapters.architecture import Architecture
from adapters.filling import filled

SWIN = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 3, 6), "num_classes": 5}


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("swinv2_tiny_window8_256", {**SWIN, "img_size": 64, "window_size": 4}, 64),
        ("vit_base_r50_s16_224", {"embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 5, "img_size": 64}, 64),
    ],
)
def test_a_network_that_needs_its_parameters_to_be_built(name: str, arguments: dict[str, Any], size: int) -> None:
    torch.manual_seed(0)
    source = timm.create_model(name, pretrained=False, **arguments).eval()
    architecture = Architecture(name, tuple(arguments.items()))
    network = filled(architecture, architecture.outline(), dict(source.state_dict()), "file").eval()
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    image = torch.randn(1, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(network(image), source(image), rtol=0, atol=0)
