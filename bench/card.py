"""What is known about a model: its Card, and the input transform that belongs to it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from bench.text import printable

Printable = Annotated[str, AfterValidator(printable)]
"""Text from outside: a folder's name, or what a checkpoint holds."""
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


Pixels = Annotated[int, Field(ge=1, le=16384)]
Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Transform(BaseModel):
    """The evaluation transform of an image network, as data; `bench.transform.apply` carries it out with PIL.

    An RGB image is resized (``resize`` an int: the shorter side, aspect kept; a pair: exactly (height, width);
    None: not at all), centre-cropped (int: square; None: not at all), scaled to [0, 1], then standardised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["image", "text"] = "image"
    """Of a ``text`` network ``custom`` says how texts become tokens, ``crop`` how many, and nothing else applies."""
    resize: Pixels | tuple[Pixels, Pixels] | None = 256
    crop: Pixels | tuple[Pixels, Pixels] | None = 224
    interpolation: Interpolation = "bicubic"
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = IMAGENET_MEAN
    std: tuple[Scale, Scale, Scale] = IMAGENET_STD
    custom: str | None = None
    """A user's own callable that stands in place of all this; its text, for records cannot hold a function."""

    def describe(self) -> str:
        """One line for people."""
        if self.custom is not None:
            return self.custom
        parts = []
        if self.resize is not None:
            parts.append(f"resize {_size(self.resize)} {self.interpolation}")
        if self.crop is not None:
            parts.append(f"crop {_size(self.crop)}")
        known = self.mean == IMAGENET_MEAN and self.std == IMAGENET_STD
        parts.append("ImageNet mean/std" if known else f"mean {_floats(self.mean)} std {_floats(self.std)}")
        return ", ".join(parts)


class Coverage(BaseModel):
    """How the checkpoint's tensors filled the network (law 1)."""

    model_config = ConfigDict(extra="forbid")

    filled: int
    """Backbone tensors that came from the checkpoint."""
    total: int
    """Backbone tensors there are (parameters and buffers that carry state)."""
    heads: list[Printable] = Field(default_factory=list)
    """Left-over names in the checkpoint that are known heads, grouped as ``head.*``."""
    unused: list[Printable] = Field(default_factory=list)
    """Left-over names that are not known heads, each named."""
    kinds: dict[Printable, str] = Field(default_factory=dict)
    """What left-over names of both lists are: ``head.*`` -> ``projection head``; names that nobody knows are absent."""


class Card(BaseModel):
    """A Backbone's (or stored features') identity and facts. Everything a Record needs to know of a model."""

    model_config = ConfigDict(extra="forbid")

    name: Printable
    """Short label, e.g. ``efficientnet-lite0``."""
    spec: Printable
    """The SPEC that led here, as the user gave it."""
    method: str | None = None
    """How it was trained, where known: ``supervised``, ``dino``, ``mae``..."""
    architecture: str
    """timm's name where there is one; ``features`` for stored features."""
    family: Literal["cnn", "vit", "hybrid", "video", "text", "features", "module"]
    dims: dict[str, int]
    """Width of every output of ``features``: pooled, and cls, avg, logits where they exist."""
    feature: str
    """Which feature ``pooled`` is: ``cls`` or ``avg`` (or a name that the adapter explains)."""
    strides: list[int] = Field(default_factory=list)
    """Strides of the maps of ``pyramid``."""
    channels: list[int] = Field(default_factory=list)
    """Channels of the maps of ``pyramid``."""
    transform: Transform | None = None
    parameters: int = 0
    """Number of backbone parameters (classifier left out)."""
    weight_digest: str
    """``sha256:...`` over names, dtypes, shapes and bytes of the backbone's tensors (classifier included)."""
    container: Printable | None = None
    """Kind of file: ``torch zip``, ``safetensors``..."""
    layout: Printable | None = None
    """Layout found inside: ``plain``, ``DINO, prefix backbone.``..."""
    weights_key: Printable | None = None
    """Which weight set of the container was read."""
    weight_sets: list[Printable] = Field(default_factory=list)
    """Weight sets of the container that fill a network, as ``weights_key`` takes them, the one read first."""
    averages: list[Printable] = Field(default_factory=list)
    """Those of ``weight_sets`` that are a running average of other weights."""
    architecture_from: str | None = None
    """How the architecture of a file was found: ``inferred from names and shapes`` or ``as --arch says``."""
    coverage: Coverage | None = None
    classes: str | None = None
    """Label set of the network's own classifier (``imagenet-1k``, ``cifar100``...), None when there is none."""
    text: Printable | None = None
    """Its text tower, where it has one: what zero-shot classification reads."""
    hazards: list[Printable] = Field(default_factory=list)
    """What the container held besides weights, and what was done about it."""
    notes: list[Printable] = Field(default_factory=list)
    step: int | None = None
    """Training step of a live module."""
    epoch: FiniteFloat | None = None
    """Training epoch of a live module."""


def digest_of(document: Any) -> str:
    """``sha256`` hex of a JSON-able document, independent of key order and of the machine."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _size(size: int | tuple[int, int]) -> str:
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"


def _floats(values: tuple[float, ...]) -> str:
    return "/".join(f"{v:.4g}" for v in values)
