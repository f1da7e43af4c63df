"""Text towers of Hugging Face's CLIP and SigLIP folders, by transformers, from the folder's weights and tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters import reader
from bench.backbone import weight_digest
from bench.errors import BenchError
from bench.texttower import TextTower

KINDS = {"clip": "CLIPTextModelWithProjection", "siglip": "SiglipTextModel"}
"""``model_type`` of a folder's configuration -> class of its text tower."""
_TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")


class HuggingFaceTextTower(TextTower):
    """``projection`` [D, J] takes the image feature into the space; None where it is there already."""

    def __init__(
        self, module: Any, tokenizer: Any, kind: str, projection: Tensor | None, scale: float, digest: str
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.kind = kind
        self.projection = projection
        self.scale = scale
        self.digest = digest

    def embed(self, texts: Sequence[str], device: torch.device) -> Tensor:
        self.module.to(device)
        length = int(self.module.config.max_position_embeddings)
        # SigLIP learned from texts filled up to their full length, without a mask; CLIP reads each text's own end.
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": length}
        tokens = self.tokenizer(list(texts), return_tensors="pt", **options)["input_ids"].to(device)
        out = self.module(input_ids=tokens)
        found: Tensor = out.text_embeds if self.kind == "clip" else out.pooler_output
        return found.float()

    def project(self, pooled: Tensor) -> Tensor:
        return pooled if self.projection is None else pooled @ self.projection.to(pooled.device)


def tower_of_folder(folder: Path, kind: str, *, trust: bool) -> TextTower:
    """The text tower of a folder. Raises `BenchError` when transformers, the tokenizer or a tensor is missing."""
    try:
        import transformers
    except ImportError:
        raise BenchError(
            f"the texts of {folder} are read by transformers: pip install 'bench-representations[text]'"
        ) from None
    content = reader.read(folder, trust=trust).content
    tensors = {name: t.float() for name, t in content.items() if isinstance(t, Tensor) and t.is_floating_point()}
    wanted = {name: t for name, t in tensors.items() if name.startswith(("text_model.", "text_projection."))}
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if kind == "clip":  # the width of the space is the whole model's
            config.text_config.projection_dim = config.projection_dim
        module = getattr(transformers, KINDS[kind])(config.text_config)
        _fill(module, wanted)
    except Exception as error:  # transformers' own have no common base
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BenchError(f"the text tower of {folder} cannot be read: {reason}") from error
    projection = tensors.get("visual_projection.weight") if kind == "clip" else None
    if kind == "clip" and projection is None:
        raise BenchError(f"{folder} has no visual_projection.weight, which takes images to the space of its texts")
    beside = {} if projection is None else {"visual_projection.weight": projection}
    scale = tensors.get("logit_scale")
    return HuggingFaceTextTower(
        module,
        _tokenizer(transformers, folder, int(module.config.vocab_size)),
        kind,
        None if projection is None else projection.T.contiguous(),
        math.exp(float(scale)) if scale is not None else 1.0,
        weight_digest({**wanted, **beside}),
    )


def _fill(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Every tensor by its name; versions of transformers keep the model's tensors under ``text_model.`` or without."""
    state = module.state_dict()
    if not any(name.startswith("text_model.") for name in state):
        tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    missing = [name for name in state if name not in tensors and state[name].is_floating_point()]
    left = [name for name in tensors if name not in state]
    if missing or left:
        raise BenchError(f"missing {', '.join(missing[:3]) or 'none'}, without a place {', '.join(left[:3]) or 'none'}")
    module.load_state_dict(tensors, strict=False)


def _tokenizer(transformers: Any, folder: Path, vocabulary: int) -> Any:
    try:
        # Without any of them transformers makes up a tokenizer of three words.
        if not any((folder / name).is_file() for name in _TOKENIZERS):
            raise FileNotFoundError("there is no tokenizer.json")
        found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if len(found) > vocabulary:
            raise ValueError(f"it has {len(found):,} words and the weights have {vocabulary:,}")
        return found
    except Exception as error:  # transformers' and the tokenizers' own have no common base
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BenchError(
            f"{folder} has no tokenizer that can be read ({reason[:160]}): put tokenizer.json and "
            f"tokenizer_config.json (or vocab.json and merges.txt) there"
        ) from error
