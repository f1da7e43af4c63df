"""Text towers as open_clip computes them: of its own models, and of checkpoints with CLIP's names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.backbone import weight_digest
from bench.errors import BenchError
from bench.texttower import TextTower

_OURS = re.compile(r"(?:text_projection|positional_embedding|token_embedding\.|transformer\.|ln_final\.).*")
SPEC = "openclip:NAME?weights=FILE"


def open_clip() -> Any:
    """The library. Raises `BenchError` with what to install."""
    try:
        import open_clip as library
    except ImportError:
        raise BenchError(
            "open_clip is not installed, which reads such models and their texts: "
            "pip install 'bench-representations[openclip]'"
        ) from None
    return library


class ClipTextTower(TextTower):
    """``encode``: tokens int64 [N, L] -> [N, J], by ``module``; ``projection``: image feature -> the space."""

    def __init__(
        self,
        module: nn.Module,
        encode: Callable[[Tensor], Tensor],
        tokenize: Callable[[list[str]], Tensor],
        projection: Callable[[Tensor], Tensor] | None,
        scale: float,
        digest: str,
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.scale = scale
        self.digest = digest
        self._encode = encode
        self._tokenize = tokenize
        self._projection = projection

    def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
        self.module.to(device)
        tokens = self._tokenize(list(texts)).to(device)
        found: Tensor = self._encode(tokens)
        return found.float()

    def project(self, pooled: Tensor) -> Tensor:
        return pooled if self._projection is None else self._projection(pooled)


class Linear:
    """``features @ weight``: how CLIP's transformers take their class token into the space of the texts."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach().float()

    def __call__(self, features: Tensor) -> Tensor:
        return features @ self.weight.to(features.device)


def tower_of_checkpoint(path: Path, label: str, *, quick: bool, trust: bool) -> TextTower:
    """The text tower beside the image tower ``label`` in a checkpoint of OpenAI's or of open_clip's class CLIP.

    ``quick``: OpenAI's activation. Raises `BenchError` when the file's texts are of another design.
    """
    from adapters import reader
    from adapters.weightsets import weight_sets

    library = open_clip()
    sets = weight_sets(reader.read(path, trust=trust).content)
    every = [_unwrapped(weights.tensors) for weights in sets if label.startswith(weights.key)]
    tensors = next(
        (own for own in every if {"text_projection", "token_embedding.weight", "logit_scale"} <= set(own)), None
    )
    if tensors is None:
        raise BenchError(f"{path} holds no text tower with CLIP's names: give it as {SPEC}")
    own = {name: tensor.float() for name, tensor in tensors.items() if _OURS.fullmatch(name)}
    try:
        from open_clip.transformer import QuickGELU, TextTransformer

        width = own["ln_final.weight"].shape[0]
        depth = len({m[1] for name in own if (m := re.match(r"transformer\.resblocks\.(\d+)\.", name))})
        module = TextTransformer(
            context_length=own["positional_embedding"].shape[0],
            vocab_size=own["token_embedding.weight"].shape[0],
            width=width,
            heads=max(1, width // 64),
            layers=depth,
            mlp_ratio=own["transformer.resblocks.0.mlp.c_fc.weight"].shape[0] / width,
            output_dim=own["text_projection"].shape[1],
            act_layer=QuickGELU if quick else nn.GELU,
        )
        module.load_state_dict(own, strict=True)
    except (RuntimeError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BenchError(f"the text tower of {path} is not CLIP's ({reason}): give it as {SPEC}") from error
    projection = tensors.get("visual.proj")
    beside = {"visual.proj": projection} if projection is not None else {}
    return ClipTextTower(
        module,
        module,
        library.get_tokenizer("ViT-B-32", context_length=module.context_length),
        Linear(projection) if projection is not None else None,
        math.exp(float(tensors["logit_scale"])),
        weight_digest({**own, **beside}),
    )


def _unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under CLIP's own names: wrappers of a training taken off."""
    return {re.sub(r"^(?:_orig_mod\.|module\.)+", "", name): tensor for name, tensor in tensors.items()}
