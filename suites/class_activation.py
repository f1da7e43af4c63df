"""Grad-CAM (Selvaraju et al. 2017): where in an image a convolutional network finds its evidence for a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.card import Card


class Activation(NamedTuple):
    """Of a batch of images."""

    logits: Tensor
    """float [B, C]."""
    maps: Tensor
    """float [B, h, w], none negative: the evidence for the class asked for."""


def check(card: Card, whose: str) -> None:
    """Raises `BenchError` for a network without maps or without a classifier."""
    if card.family in ("vit", "video", "text"):
        raise BenchError(
            f"{whose} '{card.name}' ({card.architecture}) is a transformer without convolutional maps: for those there "
            f"is suite 'attention'"
        )
    if "logits" not in card.dims:
        raise BenchError(
            f"{whose} '{card.name}' ({card.architecture}) has no classifier of its own, so no class whose evidence "
            f"could be looked for: give a checkpoint that keeps its classifier"
        )


class GradCAM:
    """Of one network. The map is the last one before the classifier that has more than one position."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.layer = ""
        """Name of the module that gives the map; known after the first batch."""
        self._module: nn.Module | None = None

    def __call__(self, images: Tensor, classes: Tensor | None = None) -> Activation:
        """``images`` float [B, 3, H, W], normalised; ``classes`` int64 [B], None for what the network itself predicts.

        relu(sum_k a_k A_k), a_k the mean over positions of the gradient of the class' logit in channel k of A.
        """
        if self._module is None:
            self._find(images)
        assert self._module is not None
        held: list[Tensor] = []

        def cut(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            # Gradients go back to here alone; a copy, for what follows may write into it.
            leaf = output.detach().requires_grad_(True)
            held[:] = [leaf]
            return leaf.clone()

        handle = self._module.register_forward_hook(cut)
        try:
            with torch.enable_grad():
                logits = self.backbone.features(images)["logits"]
        finally:
            handle.remove()
        chosen = logits.argmax(dim=1) if classes is None else classes
        score = logits.gather(1, chosen[:, None]).sum()
        if not score.requires_grad:
            raise self._refusal("its classifier does not read them by a way that has gradients")
        (gradient,) = torch.autograd.grad(score, held[0])
        weights = gradient.mean(dim=(2, 3), keepdim=True)
        maps = (weights * held[0].detach()).sum(dim=1).clamp_min(0)
        return Activation(logits.detach(), maps)

    def _find(self, images: Tensor) -> None:
        last: list[tuple[str, nn.Module]] = []

        def note(name: str) -> Any:
            def hook(module: nn.Module, _: Any, output: Any) -> None:
                if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                    last[:] = [(name, module)]

            return hook

        handles = [part.register_forward_hook(note(name)) for name, part in self.backbone.named_modules() if name]
        try:
            with torch.no_grad():
                self.backbone.features(images[:1])
        finally:
            for handle in handles:
                handle.remove()
        if not last:
            raise self._refusal("none with more than one position was seen")
        (self.layer, self._module) = last[0]

    def _refusal(self, why: str) -> BenchError:
        card = self.backbone.card
        return BenchError(f"'{card.name}' ({card.architecture}) has no maps that Grad-CAM could read: {why}")
