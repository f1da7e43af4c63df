"""A network of transformers as a Backbone: whatever its class, read as `adapters.vision.reading` found it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from adapters.vision.model import Model, quiet
from adapters.vision.reading import Raw, Reading, as_map, grid, hidden_of, last_of, run
from bench.backbone import Backbone, checked, freeze, weight_digest
from bench.card import Card
from bench.errors import BenchError


class VisionBackbone(Backbone):
    """``pooled`` is the model's ``pooler_output``, else its class token, else the mean of its last tokens or map."""

    def __init__(self, model: Model, reading: Reading, card: Card) -> None:
        super().__init__()
        self.network: nn.Module = model.whole
        self._model = replace(model, whole=None, tower=None)  # both are reached through the one that is moved
        self._way = next(name for name, part in model.whole.named_modules() if part is model.tower)
        self.reading = reading
        head = tuple(name for name, _ in model.whole.named_children() if not self._way.startswith(name))
        head = head if model.classifier else ()
        parameters = model.whole.named_parameters()
        tensors = model.whole.state_dict()
        if reading.blue_first:  # features of the same weights, and others
            tensors = {**tensors, "blue_first": torch.ones(1)}
        self.card = card.model_copy(
            update={
                "parameters": sum(p.numel() for n, p in parameters if n.partition(".")[0] not in head),
                "weight_digest": weight_digest(tensors),
                "strides": reading.strides,
                "channels": reading.channels,
                "family": self._family(),
            }
        )
        freeze(self)
        with torch.no_grad():
            height, width = reading.size
            shape = (1, 3, reading.clip, height, width) if reading.frames else (1, 3, height, width)
            out = self._read(torch.zeros(shape, device=next(model.whole.parameters()).device))
        self.card = self.card.model_copy(
            update={"dims": {name: value.shape[1] for name, value in out.items()}, "feature": self._feature(out)}
        )

    @property
    def depth(self) -> int:
        return len(self._tower().get_submodule(self.reading.blocks)) if self.reading.blocks else 0  # type: ignore[arg-type]

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return self._read(self._checked(images))

    def pyramid(self, images: Tensor) -> list[Tensor]:
        images = self._checked(images)
        if not self.reading.strides:
            raise BenchError(f"'{self.card.name}' ({self.card.architecture}) shows no maps of its stages")
        if self.reading.patch:
            tokens = self._normed(last_of(self._run(images).out))
            frames, rows, columns = self._grid(images)
            patches = self._patches(tokens, frames * rows * columns)
            maps = patches.reshape(len(images), frames, rows, columns, -1).mean(1)
            return [maps.permute(0, 3, 1, 2).contiguous()]
        hidden = hidden_of(self._run(images, hidden=True).out)
        found = [as_map(hidden[index], images, turned) for index, turned in self.reading.levels]
        return [level.contiguous() for level in found if level is not None]

    def blocks(self, images: Tensor, n: int = 4, norm: bool = True) -> list[tuple[Tensor, Tensor | None]]:
        images = self._checked(images)
        if not self.depth:
            return super().blocks(images, n, norm)
        if not 1 <= n <= self.depth:
            raise BenchError(f"'{self.card.name}' has {self.depth} blocks: the last {n} cannot be read")
        frames, rows, columns = self._grid(images)
        found: list[tuple[Tensor, Tensor | None]] = []
        for tokens in self._run(images).blocks[-n:]:
            if norm and self.reading.norm:
                tokens = self._tower().get_submodule(self.reading.norm)(tokens)
            patches = self._patches(tokens, frames * rows * columns)
            found.append((patches, tokens[:, 0] if self.reading.class_token else None))
        return found

    def _tower(self) -> nn.Module:
        return self.network.get_submodule(self._way)

    def _checked(self, images: Tensor) -> Tensor:
        return checked(images, dims=5 if self.reading.frames else 4)

    def _grid(self, images: Tensor) -> tuple[int, int, int]:
        frames = images.shape[2] if self.reading.frames else 1
        return grid(self.reading, images.shape[-2], images.shape[-1], frames)

    def _run(self, images: Tensor, *, hidden: bool = False) -> Raw:
        model = replace(self._model, whole=self.network, tower=self._tower())
        try:
            with quiet():
                return run(model, self.reading, images, hidden=hidden)
        except (ValueError, RuntimeError) as error:
            # Only a size that the network cannot take is the user's affair: memory and devices are the engine's.
            native = tuple(images.shape[-2:]) == self.reading.size
            if isinstance(error, torch.OutOfMemoryError) or native:
                raise
            words = " ".join(str(error).split())
            if not any(word in words for word in ("size", "shape", "match", "divis")):
                raise
            asked, own = ("x".join(map(str, s)) for s in (images.shape[-2:], self.reading.size))
            raise BenchError(
                f"'{self.card.name}' ({self.card.architecture}) cannot take images of {asked} pixels, its own are "
                f"{own}: {words[:200]}"
            ) from error

    def _normed(self, last: Tensor) -> Tensor:
        if self.reading.norm and not self.reading.norm_applied:
            last = self._tower().get_submodule(self.reading.norm)(last)
        return last

    def _patches(self, tokens: Tensor, count: int) -> Tensor:
        return tokens[:, self.reading.prefix : self.reading.prefix + count]

    def _read(self, images: Tensor) -> dict[str, Tensor]:
        raw = self._run(images)
        last = last_of(raw.out)
        out: dict[str, Tensor] = {}
        if last.ndim == 4:
            out["avg"] = last.mean((1, 2) if self.reading.channels_last else (2, 3))
        elif last.ndim == 3 and self.reading.patch:
            last, (frames, rows, columns) = self._normed(last), self._grid(images)
            out["avg"] = self._patches(last, frames * rows * columns).mean(1)
            if self.reading.class_token:
                out["cls"] = last[:, 0]
        else:
            out["avg"] = last.mean(1) if last.ndim == 3 else last
        own = self.reading.pooled
        pooled = raw.out["pooler_output"].flatten(1) if own == "pooler_output" else out[own]
        if raw.logits is not None:
            out["logits"] = raw.logits
        return {"pooled": pooled, **out}

    def _family(self) -> Literal["cnn", "vit", "hybrid", "video"]:
        if self.reading.frames:
            return "video"
        if self.reading.patch and self.reading.blocks:
            return "vit"
        return (
            "hybrid" if any("attention" in type(part).__name__.lower() for part in self._tower().modules()) else "cnn"
        )

    def _feature(self, out: dict[str, Tensor]) -> str:
        """What ``pooled`` is: a pooler that only takes the class token or the mean is called by that."""
        for name in ("cls", "avg"):
            if name in out and torch.equal(out["pooled"], out[name]):
                return name
        return self.reading.pooled
