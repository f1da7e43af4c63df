"""Small networks of transformers' image and video classes, and the folders that it makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from layouthelp import filled, values
from torch import Tensor

import bench
from adapters.vision.backbone import VisionBackbone

transformers = pytest.importorskip("transformers", reason="the extra huggingface is not installed")

PLAIN = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
LEVIT = {
    "image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
    "key_dim": [8, 8, 8],
}  # fmt: skip
FOUR = [4, 8, 16, 32]
TEXT = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 99,
    "max_position_embeddings": 16,
}  # fmt: skip
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
WINDOWS = {"image_size": 64, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


def class_token(out: Any) -> Tensor:
    token: Tensor = out.last_hidden_state[:, 0]
    return token


def pooler(out: Any) -> Tensor:
    pooled: Tensor = out.pooler_output
    return pooled.flatten(1)


def mean(out: Any) -> Tensor:
    last: Tensor = out.last_hidden_state
    return last.mean(1) if last.ndim == 3 else last.mean((2, 3))


# Model type: fields, what transformers' own output is compared with, the strides of the pyramid, token blocks.
MODELS: dict[str, tuple[dict[str, Any], Any, list[int], int]] = {
    "aimv2_vision_model": (PLAIN, pooler, [8], 2),
    "altclip": ({"vision_config": PLAIN, "text_config": TEXT}, pooler, [8], 2),
    "bit": ({"embedding_size": 8, "num_groups": 4, **STAGES}, pooler, FOUR, 0),
    "blip": ({"vision_config": PLAIN, "text_config": TEXT}, pooler, [8], 2),
    "chinese_clip": ({"vision_config": PLAIN, "text_config": TEXT}, pooler, [8], 2),
    "cvt": ({"embed_dim": [8, 16, 24], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}, mean, [4, 8, 16], 0),
    "donut-swin": (WINDOWS, pooler, [4, 8], 0),
    "efficientnet": (
        {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320}, pooler, FOUR, 0,
    ),
    "focalnet": ({"image_size": 64, "embed_dim": 8, "depths": [1, 1, 1, 1]}, pooler, FOUR, 0),
    "hiera": (
        {"image_size": [64, 64], "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}, pooler, FOUR, 0,
    ),
    "levit": (LEVIT, pooler, [16, 32, 64], 0),
    "mlcd_vision_model": (PLAIN, pooler, [8], 2),
    "mobilenet_v1": ({"image_size": 64, "depth_multiplier": 0.25}, pooler, FOUR, 0),
    "mobilenet_v2": ({"image_size": 64, "depth_multiplier": 0.25}, pooler, FOUR, 0),
    "owlvit": ({"vision_config": PLAIN, "text_config": TEXT}, pooler, [8], 2),
    "poolformer": (STAGES, mean, FOUR, 0),
    "pvt_v2": ({"image_size": 64, **STAGES, "hidden_sizes": [8, 16, 40, 32]}, mean, FOUR, 0),
    "regnet": ({"embedding_size": 8, "groups_width": 8, **STAGES}, pooler, FOUR, 0),
    "segformer": ({"num_attention_heads": [1, 2, 2, 4], **STAGES}, mean, FOUR, 0),
    "timesformer": ({**PLAIN, "num_frames": 2}, class_token, [8], 2),
    "videomae": ({**PLAIN, "num_frames": 4}, mean, [8], 2),
    "yolos": ({**PLAIN, "image_size": [32, 32], "num_detection_tokens": 3}, pooler, [8], 2),
}  # fmt: skip


def made(kind: str, fields: dict[str, Any] | None = None, name: str | None = None) -> Any:
    config = transformers.CONFIG_MAPPING[kind].from_dict(dict(fields if fields is not None else MODELS[kind][0]))
    own = getattr(transformers, name) if name else transformers.MODEL_MAPPING[type(config)]
    return filled(own(config))


def saved(model: Any, folder: Path, *, as_5: bool = False) -> Path:
    """The folder that transformers writes: with the names of its version 4, as on the hub, or of 5."""
    model.save_pretrained(folder, **({"save_original_format": False} if as_5 else {}))
    return folder


def images_of(model: Any, kind: str) -> Tensor:
    config = getattr(model.config, "vision_config", model.config)
    size = getattr(config, "image_size", 64)
    height, width = (size, size) if isinstance(size, int) else size
    frames = [config.num_frames] if hasattr(config, "num_frames") else []
    return values("images", (2, 3, *frames, height, width)) * float((3 * height * width) ** 0.5)


def loaded(folder: Path) -> VisionBackbone:
    backbone = bench.load(folder)
    assert isinstance(backbone, VisionBackbone)
    return backbone


def with_config(folder: Path, **stated: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **stated}))
    return folder
