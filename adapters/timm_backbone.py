"""A timm network as a Backbone: convolutional networks, plain and hierarchical transformers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from bench.backbone import Backbone, checked, freeze, weight_digest
from bench.card import IMAGENET_MEAN, IMAGENET_STD, Card, Interpolation, Transform
from bench.errors import BenchError

Feature = Literal["cls", "cls before norm", "avg", "head"]
"""What ``pooled`` is: the class token (after or before the final norm), the mean of the patch tokens (or of the last
map), or the head's input."""

# Flexible input sizes, where the architecture takes such an argument. A classifier is as in the checkpoint.
_SIZE_ARGUMENTS: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


def create(name: str, *, flexible: bool = True, **arguments: Any) -> nn.Module:
    """A timm network, accepting other input sizes than its own where the architecture can; weights are timm's.

    Raises `BenchError` for an unknown name. Errors of timm's own (weights that cannot be had) pass through.
    """
    import timm
    from timm.models import is_model

    if not is_model(name.partition(".")[0]):
        from adapters.nearby import nearest
        from adapters.networks import TABLE

        raise BenchError(f"there is no architecture '{name}'{nearest(name, [*timm.list_models(), *TABLE])}")
    for size in _SIZE_ARGUMENTS if flexible else ({},):
        try:
            network: nn.Module = timm.create_model(name, **size, **arguments)
        except TypeError as error:
            if not size or not any(argument in str(error) for argument in size):
                raise
        else:
            return network
    raise AssertionError("unreachable: the last attempt has no size argument")


def transform_of(network: nn.Module) -> Transform:
    """The evaluation transform of timm's own pretrained configuration."""
    from timm.data import resolve_data_config

    return transform_from(resolve_data_config({}, model=network))


def transform_from(config: Mapping[str, Any]) -> Transform:
    """The transform of what timm's ``resolve_data_config`` makes of a pretrained configuration."""
    height, width = config["input_size"][1:]
    crop: int | tuple[int, int] = height if height == width else (height, width)
    # timm floors the resize, as its own Resize does; squash and border modes resize to an exact pair.
    scaled = (int(height / config["crop_pct"]), int(width / config["crop_pct"]))
    resize: int | tuple[int, int] = scaled[0] if isinstance(crop, int) and config["crop_mode"] == "center" else scaled
    interpolation: Interpolation = config["interpolation"]
    return Transform(
        resize=resize,
        crop=crop,
        interpolation=interpolation,
        mean=tuple(config.get("mean", IMAGENET_MEAN)),
        std=tuple(config.get("std", IMAGENET_STD)),
    )


class Traits(NamedTuple):
    """What the network's structure says, without running it."""

    family: Literal["cnn", "vit", "hybrid"]
    levels: list[int]
    """Indices into ``feature_info`` of the maps of the pyramid."""
    strides: list[int]
    channels: list[int]
    isotropic: bool
    """One width and one stride throughout: a plain transformer, whose blocks all give the same tokens."""
    prefix: int
    """Tokens before the patch tokens: class, distillation, registers."""
    class_token: bool
    width: int
    """Channels of the last map or of the tokens."""
    penultimate: int
    """Width of the classifier's input."""
    classes: int


def traits(network: Any) -> Traits:
    """Structure of a timm network from its own ``feature_info`` and attributes."""
    info = getattr(network, "feature_info", None) or []
    rows = list(info) if isinstance(info, list) else list(info.info)
    reductions = [int(row["reduction"]) for row in rows]
    isotropic = len(rows) > 1 and len(set(reductions)) == 1 and len({row["num_chs"] for row in rows}) == 1
    # Detection and segmentation heads read strides 4 to 32; small networks have only finer ones.
    coarse = [i for i, reduction in enumerate(reductions) if reduction >= 4] or list(range(len(rows)))
    levels = coarse[-1:] if isotropic else coarse
    prefix = int(getattr(network, "num_prefix_tokens", 0) or 0)
    token = getattr(network, "has_class_token", getattr(network, "cls_token", None) is not None)
    attention = any("attention" in type(part).__name__.lower() for part in network.modules())
    tokens = isotropic or getattr(network, "output_fmt", "NCHW") != "NCHW" or hasattr(network, "num_prefix_tokens")
    family: Literal["cnn", "vit", "hybrid"] = "cnn" if not attention else "vit" if tokens else "hybrid"
    return Traits(
        family="vit" if isotropic else family,
        levels=levels,
        strides=[reductions[i] for i in levels],
        channels=[int(rows[i]["num_chs"]) for i in levels],
        isotropic=isotropic,
        prefix=prefix,
        class_token=bool(token) and prefix > 0,
        width=int(network.num_features),
        penultimate=int(getattr(network, "head_hidden_size", 0) or network.num_features),
        classes=int(getattr(network, "num_classes", 0) or 0),
    )


class TimmBackbone(Backbone):
    """A timm network, frozen. ``feature`` fixes what ``pooled`` is; ``card.dims`` and strides are filled in here.

    ``linear``: a classifier that timm's network has no place for, and the features that it reads side by side.
    """

    def __init__(
        self,
        network: nn.Module,
        card: Card,
        *,
        feature: Feature = "head",
        linear: tuple[nn.Linear, tuple[str, ...]] | None = None,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.linear: nn.Linear | None = None
        self._read_by_linear: tuple[str, ...] = ()
        if linear is not None:
            self.linear, self._read_by_linear = linear
        self.traits = traits(network)
        own = self.traits
        self._check(card.name, feature)
        self._feature = feature
        dims = {"pooled": own.penultimate if feature == "head" else own.width, "avg": own.width}
        if own.class_token:
            dims["cls"] = own.width
        if own.classes:
            dims["logits"] = own.classes
        elif self.linear is not None:
            dims["logits"] = self.linear.out_features
        head = tuple(f"{name}." for name in classifier_names(network))
        tensors = network.state_dict()
        if self.linear is not None:
            tensors = {**tensors, **{f"linear.{name}": tensor for name, tensor in self.linear.state_dict().items()}}
        self.card = card.model_copy(
            update={
                "family": own.family,
                "dims": dims,
                "feature": self._name_of_feature(),
                "strides": own.strides,
                "channels": own.channels,
                "parameters": sum(p.numel() for n, p in network.named_parameters() if not n.startswith(head)),
                "weight_digest": weight_digest(tensors),
            }
        )
        freeze(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        images = self._checked(images)
        if self._feature == "cls before norm":
            last, raw = self._last_and_raw(images)
        else:
            last, raw = self._last(images), None
        out = self._read(last)
        if raw is not None:
            out["pooled"] = raw
        elif self._feature == "head":
            out["pooled"] = self._pre_logits(last)
        else:
            out["pooled"] = out[self._feature]
        if self.traits.classes:
            out["logits"] = self.network.forward_head(last)
        elif self.linear is not None:
            out["logits"] = self.linear(torch.cat([out[name] for name in self._read_by_linear], 1))
        return {name: value for name, value in out.items() if name in self.card.dims}

    def pyramid(self, images: Tensor) -> list[Tensor]:
        arguments: dict[str, Any] = {"norm": True} if self.traits.isotropic else {}
        maps = self._intermediates(images, self.traits.levels, output_fmt="NCHW", **arguments)
        return [level.contiguous() for level in maps]

    @property
    def depth(self) -> int:
        return len(getattr(self.network, "blocks", [])) if self.traits.isotropic else 0

    def blocks(self, images: Tensor, n: int = 4, norm: bool = True) -> list[tuple[Tensor, Tensor | None]]:
        depth = self.depth
        if not depth:
            return super().blocks(images, n, norm)
        if not 1 <= n <= depth:
            raise BenchError(f"'{self.card.name}' has {depth} blocks: the last {n} cannot be read")
        arguments: dict[str, Any] = {"return_prefix_tokens": True} if self.traits.prefix else {}
        read = self._intermediates(images, n, output_fmt="NLC", norm=norm, **arguments)
        if not self.traits.prefix:
            return [(tokens, None) for tokens in read]
        return [(tokens, prefix[:, 0] if self.traits.class_token else None) for tokens, prefix in read]

    def _checked(self, images: Any) -> Tensor:
        # A network of other channels (in_chans=1) has its own refusal of others.
        own = getattr(self.network, "in_chans", 3)
        return checked(images) if own == 3 else cast(Tensor, images)

    def _last(self, images: Tensor) -> Tensor:
        try:
            last = self.network.forward_features(images)
        except (AssertionError, RuntimeError) as error:
            raise self._refusal(images, error) from error
        if not isinstance(last, Tensor):
            raise BenchError(f"architecture '{self.card.architecture}' gives no single last map: it is not supported")
        return last

    def _last_and_raw(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last tokens, and the class token of the last block before the final norm, of one forward."""
        try:
            last, blocks = self.network.forward_intermediates(
                images, indices=1, return_prefix_tokens=True, norm=False, output_fmt="NLC"
            )
        except (AssertionError, RuntimeError) as error:
            raise self._refusal(images, error) from error
        return last, blocks[-1][1][:, 0]

    def _intermediates(self, images: Tensor, indices: Any, **arguments: Any) -> list[Any]:
        reader = getattr(self.network, "forward_intermediates", None)
        accepted = inspect.signature(reader).parameters if reader is not None else {}
        missing = [name for name in arguments if name not in accepted]
        if reader is None or missing:
            raise BenchError(f"architecture '{self.card.architecture}' gives no intermediate maps of this kind in timm")
        try:
            return list(reader(self._checked(images), indices=indices, intermediates_only=True, **arguments))
        except (AssertionError, RuntimeError) as error:
            raise self._refusal(images, error) from error

    def _refusal(self, images: Tensor, error: Exception) -> BaseException:
        # Only a size that the architecture cannot take is the user's affair: memory and devices are the engine's.
        native = self.network.pretrained_cfg["input_size"][1:] if hasattr(self.network, "pretrained_cfg") else None
        if isinstance(error, torch.OutOfMemoryError) or native is None or tuple(images.shape[2:]) == tuple(native):
            return error
        if isinstance(error, AssertionError) or "size" in str(error) or "shape" in str(error):
            size = "x".join(str(s) for s in images.shape[2:])
            return BenchError(f"architecture '{self.card.architecture}' cannot take images of {size} pixels: {error}")
        return error

    def _read(self, last: Tensor) -> dict[str, Tensor]:
        """``avg`` and ``cls`` of the last map or tokens."""
        if last.ndim == 4:
            positions = (1, 2) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else (2, 3)
            return {"avg": last.mean(positions)}
        if last.ndim == 2:
            return {"avg": last}
        out = {"avg": last[:, self.traits.prefix :].mean(1)}
        norm = getattr(self.network, "fc_norm", None)
        if isinstance(norm, nn.Module) and isinstance(getattr(self.network, "norm", None), nn.Identity):
            # The final norm comes after the mean in such networks.
            out["avg"] = norm(out["avg"])
        if self.traits.class_token:
            out["cls"] = last[:, 0]
        return out

    def _pre_logits(self, last: Tensor) -> Tensor:
        pooled: Tensor = self.network.forward_head(last, pre_logits=True)
        return pooled.flatten(1) if pooled.ndim > 2 else pooled

    def _check(self, name: str, feature: Feature) -> None:
        if feature.startswith("cls") and not self.traits.class_token:
            raise BenchError(f"'{name}' has no class token to evaluate")

    def _name_of_feature(self) -> str:
        if self._feature != "head":
            return self._feature
        pool = getattr(self.network, "global_pool", None)
        if pool == "token" and self.traits.prefix and self.traits.class_token:
            return "cls" if not hasattr(self.network, "head_dist") else "pre_logits"
        changed = self.traits.penultimate != self.traits.width or _changes_its_input(
            getattr(self.network, "head", None)
        )
        return "pre_logits" if changed or (isinstance(pool, str) and pool != "avg") else "avg"


def _changes_its_input(head: object) -> bool:
    """Whether a head normalises or transforms the pooled feature before its classifier."""
    if not isinstance(head, nn.Module):  # some networks have none, HRNet has a word there
        return False
    hidden = getattr(head, "pre_logits", None)
    transforms = isinstance(hidden, nn.Module) and any(True for _ in hidden.parameters())
    return transforms or any("Norm" in type(part).__name__ for part in head.modules())


def backbone_tensors(network: nn.Module) -> list[str]:
    """Names of the tensors that a frozen network computes with: no counters, no index tables, no classifier."""
    heads = tuple(f"{name}." for name in classifier_names(network))
    state = network.state_dict()
    return [name for name, tensor in state.items() if tensor.is_floating_point() and not name.startswith(heads)]


def classifier_names(network: nn.Module) -> tuple[str, ...]:
    """Module names of the classifier of a timm network (distilled networks have two)."""
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    names = config.get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
