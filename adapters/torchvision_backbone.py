"""A torchvision classifier as a Backbone; where its parts lie is found by running its outline once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from bench.backbone import Backbone, checked, freeze, weight_digest
from bench.card import Card
from bench.errors import BenchError

_TRUNKS = ("features", "trunk_output", "blocks")


class _Stage(NamedTuple):
    name: str
    stride: int
    channels: int


def classifier_name(network: nn.Module) -> str:
    """Module name of the classifier: the last linear layer, or SqueezeNet's convolution."""
    linear: list[str] = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
    if linear:
        return linear[-1]
    convolutions: list[str] = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    return convolutions[-1]


class TorchvisionBackbone(Backbone):
    """A torchvision classifier, frozen. ``pooled`` is the classifier's input."""

    def __init__(self, network: nn.Module, card: Card, *, size: int = 224) -> None:
        super().__init__()
        for auxiliary in ("aux1", "aux2", "AuxLogits"):  # heads of training alone
            if isinstance(getattr(network, auxiliary, None), nn.Module):
                setattr(network, auxiliary, None)
        self.network: Any = network.eval()
        self._channels_last = type(network).__name__ == "SwinTransformer"
        self._classifier = classifier_name(network)
        self._has_pool = isinstance(getattr(network, "avgpool", None), nn.Module)
        crop = card.transform.crop if card.transform is not None else size
        self._stages, widths = self._probe(crop if isinstance(crop, int) else size)
        head = f"{self._classifier}."
        attention = any("Attention" in type(part).__name__ for part in network.modules())
        family: Literal["vit", "hybrid", "cnn"] = "vit" if self._channels_last else "hybrid" if attention else "cnn"
        same = widths["avg"] == widths["pooled"] and not _normalised(network, self._classifier)
        self.card = card.model_copy(
            update={
                "family": family,
                "dims": widths,
                "feature": "avg" if same else "pre_logits",
                "strides": [stage.stride for stage in self._stages],
                "channels": [stage.channels for stage in self._stages],
                "parameters": sum(p.numel() for n, p in network.named_parameters() if not n.startswith(head)),
                "weight_digest": weight_digest(network.state_dict()),
            }
        )
        freeze(self)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        out, _ = self._run(self.network, checked(images))
        return out

    def pyramid(self, images: Tensor) -> list[Tensor]:
        _, maps = self._run(self.network, checked(images))
        return [maps[stage.name].contiguous() for stage in self._stages]

    def _run(self, network: Any, images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        with _watching(network, self._classifier, self._watched(network)) as (seen, maps):
            logits = network(images)
        pooled = seen["pooled"]
        out = {"pooled": pooled.mean((2, 3)) if pooled.ndim == 4 else pooled}
        maps = {name: value.permute(0, 3, 1, 2) if self._channels_last else value for name, value in maps.items()}
        if "last" in seen:
            out["avg"] = seen["last"].mean((2, 3))
        else:
            last = list(maps.values())[-1]
            out["avg"] = out["pooled"] if last.shape[1] == out["pooled"].shape[1] else last.mean((2, 3))
        if logits.shape[1]:
            out["logits"] = logits
        return out, maps

    def _watched(self, network: nn.Module) -> dict[str, nn.Module]:
        """The parts whose maps may be levels of the pyramid."""
        for trunk in _TRUNKS:
            inner = getattr(network, trunk, None)
            if isinstance(inner, nn.Module):
                return {f"{trunk}.{name}": part for name, part in inner.named_children()}
        before_pooling: dict[str, nn.Module] = {}
        for name, part in network.named_children():
            if name == "avgpool":
                break
            before_pooling[name] = part
        return before_pooling

    def _probe(self, size: int) -> tuple[list[_Stage], dict[str, int]]:
        """Stages and widths, from shapes alone where the network runs on the meta device."""
        try:
            outline = copy.deepcopy(self.network).to("meta")
            with torch.no_grad():
                out, maps = self._run(outline, torch.empty(1, 3, size, size, device="meta"))
        except (NotImplementedError, RuntimeError):
            with torch.no_grad():
                out, maps = self._run(self.network, torch.zeros(1, 3, size, size))
        last: dict[int, _Stage] = {}
        for name, value in maps.items():
            if value.ndim == 4 and value.shape[-1] > 1:
                stride = 2 ** round(math.log2(size / value.shape[-1]))
                last[stride] = _Stage(name, stride, value.shape[1])
        stages = [last[stride] for stride in sorted(last)]
        coarse = [stage for stage in stages if stage.stride >= 4]
        if not stages:
            raise BenchError(f"architecture '{type(self.network).__name__}' shows no maps")
        return coarse or stages, {name: value.shape[1] for name, value in out.items()}


def _normalised(network: nn.Module, classifier: str) -> bool:
    """Whether something between pooling and classifier changes the feature."""
    parent = network.get_submodule(classifier.rpartition(".")[0])
    parts = list(parent.children()) if parent is not network else []
    return any("Norm" in type(part).__name__ or isinstance(part, nn.Linear) for part in parts[:-1])


@contextmanager
def _watching(
    network: nn.Module, classifier: str, parts: dict[str, nn.Module]
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """While inside, forward passes note the classifier's input, the pooling's input and the outputs of ``parts``."""
    seen: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}

    def output_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                maps[name] = output

        return note

    def input_as(name: str) -> Callable[[nn.Module, Any], None]:
        def note(_: nn.Module, inputs: Any) -> None:
            seen[name] = inputs[0]

        return note

    handles = [network.get_submodule(classifier).register_forward_pre_hook(input_as("pooled"))]
    if isinstance(getattr(network, "avgpool", None), nn.Module):
        handles.append(network.avgpool.register_forward_pre_hook(input_as("last")))  # type: ignore[union-attr]
    handles += [part.register_forward_hook(output_of(name)) for name, part in parts.items()]
    try:
        yield seen, maps
    finally:
        for handle in handles:
            handle.remove()
