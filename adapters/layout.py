"""What a layout is: the method whose file it is, and what that method's evaluation does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from adapters.positions import How
from adapters.timm_backbone import Feature
from bench.card import Transform

BILINEAR = Transform(resize=256, crop=224, interpolation="bilinear")
BICUBIC = Transform(resize=256, crop=224, interpolation="bicubic")
HALF = BICUBIC.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)})
PIXELS = BILINEAR.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
CLIP = Transform(
    resize=224,
    crop=224,
    interpolation="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
CIFAR10 = Transform(
    resize=32, crop=32, interpolation="bilinear", mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)
)
CIFAR100 = Transform(
    resize=32, crop=32, interpolation="bilinear", mean=(0.5071, 0.4867, 0.4408), std=(0.2675, 0.2565, 0.2761)
)

Arguments = Callable[[str], dict[str, Any]]


def _none(architecture: str) -> dict[str, Any]:
    return {}


def twelve_heads(architecture: str) -> dict[str, Any]:
    """MoCo v3's small transformer has twelve heads of 32, not timm's six of 64."""
    return {"num_heads": 12} if architecture.startswith("vit_small") else {}


def beit_arguments(architecture: str) -> dict[str, Any]:
    # The pretrained final norm is over tokens; timm's default would use the one over the mean.
    return {"global_pool": "token"} if architecture.startswith("beit") else {}


def absolute_beit(architecture: str) -> dict[str, Any]:
    own = {"use_abs_pos_emb": True, "use_rel_pos_bias": False, "init_values": 0.0}
    return {**beit_arguments(architecture), **own} if architecture.startswith("beit") else {}


def no_final_norm(architecture: str) -> dict[str, Any]:
    return {"final_norm": False} if architecture.startswith("vit") else {}


@dataclass(frozen=True)
class Layout:
    """``signs``: each must match wholly some ``set/name`` of the file or some member's name; ``lacks``: none may."""

    name: str
    method: str | None
    signs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    weights: str | None = None
    """Pattern of the weight set that the method's evaluation reads, where the common rule would not find it."""
    transform: Transform | None = None
    feature: Feature | None = None
    """What a transformer's frozen feature is; convolutional networks always give the pooled last map."""
    arguments: Arguments = _none
    classifier: bool = False
    """Whether a tensor in the classifier's place is a classifier, and not a projection head."""
    architectures: str = ""
    """Pattern of the architectures that an inferred one must have, where tensors alone do not tell."""
    note: str | None = None
    timm_transform: bool = False
    """Whether timm's own transform of the architecture is the one that the file was trained for."""
    at_native_size: bool = False
    """Whether ``transform`` is meant at 224 pixels and follows the network's own input size."""
    norm_optional: bool = False
    """Whether the method's class may be without a final norm, so that a file without one is whole."""
    square: str | None = None
    """Pattern of a ``set/name`` that must be there with a square matrix."""
    linear: tuple[Literal["cls", "avg"], ...] = ()
    """What the method's classifier ``head`` reads, side by side, where that is not the network's own place for one."""
    padded_first: bool = False
    """Whether the method's Swin pads maps that its windows do not divide before it shifts them, see `hf_swin`."""
    positions: How = "antialiased"
    """How the method resizes its position grid, see `adapters.positions`."""

    def answers(self, names: Mapping[str, Sequence[int]]) -> bool:
        """Whether a file with such names (and shapes) has this layout."""
        listed = list(names)
        if self.square is not None:
            shapes = [shape for name, shape in names.items() if re.fullmatch(self.square, name)]
            if not any(len(shape) == 2 and shape[0] == shape[1] for shape in shapes):
                return False
        found = all(any(re.fullmatch(sign, name) for name in listed) for sign in self.signs)
        return found and not any(re.fullmatch(sign, name) for sign in self.lacks for name in listed)


PLAIN = Layout("plain", None, classifier=True)
