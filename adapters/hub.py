"""``hf:ORG/NAME``: a model of the Hugging Face hub, from the local cache or downloaded, read like any such folder."""

from __future__ import annotations

import re
from pathlib import Path

from adapters import path
from adapters.network import hub_from_cache, offline
from bench.backbone import Backbone
from bench.errors import BenchError

WANTED = [
    "*.safetensors", "*.safetensors.index.json", "config.json", "*processor_config.json", "pytorch_model*.bin*",
    "tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model", "modules.json",
    "sentence_bert_config.json", "*_Pooling/config.json",
]  # fmt: skip
"""Weights and what says how to read them; code that a repository brings is never fetched."""
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(@[\w./-]+)?")


def load(rest: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False) -> Backbone:
    """The network of ``ORG/NAME`` or ``ORG/NAME@REVISION``. Raises `BenchError` when it cannot be had or read."""
    if not _NAME.fullmatch(rest):
        raise BenchError(f"hf:{rest[:120]} is no name of the hub: write hf:ORG/NAME or hf:ORG/NAME@REVISION")
    name, _, revision = rest.partition("@")
    backbone = path.load(str(_folder(name, revision or None)), arch=arch, weights_key=weights_key, trust=trust)
    # The snapshot's folder is called by its commit: people know the model by its name.
    backbone.card = backbone.card.model_copy(update={"name": name.rpartition("/")[2], "spec": f"hf:{rest}"})
    return backbone


def _folder(name: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BenchError(f"hf:{name} needs huggingface_hub, which cannot be loaded here: {error}") from None
    try:
        with hub_from_cache():
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except Exception as error:  # the hub's client and urllib have no common base
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if offline():
            reason = "BENCH_OFFLINE is set and it is not in the hub's local cache"
        raise BenchError(
            f"hf:{name} cannot be had ({reason.rstrip('.')[:200]}): run once where the hub can be reached, or give the "
            f"folder with its files as --model PATH"
        ) from error
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise BenchError(f"hf:{name} holds no safetensors and no PyTorch weights: it cannot be read here")
    return folder
