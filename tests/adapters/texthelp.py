"""Tiny text encoders in real Hugging Face folders, with a vocabulary of a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_WORDS = (
    "the a an red green blue cat dog bird sat ran flew on over under mat tree house who where what is was not and "
    "good bad film very ##s ##ing , . ? ! ' - 1 2 3 in of paris france capital river"
)
WORDS = _WORDS.split()
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
KINDS: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "mobilebert": {
        "embedding_size": 8, "intra_bottleneck_size": 8, "true_hidden_size": 8, "num_feedforward_networks": 1,
    },
    "roberta": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "type_vocab_size": 1},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "mpnet": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
}  # fmt: skip


def encoder(folder: Path, kind: str = "bert", *, seed: int = 0, **changes: Any) -> Path:
    """A folder as ``save_pretrained`` writes it: random weights of ``kind``, and a WordPiece vocabulary."""
    from transformers import AutoConfig, AutoModel

    sizes = {} if kind == "distilbert" else SIZES
    fields = {**sizes, **KINDS[kind], "vocab_size": len(VOCABULARY), "max_position_embeddings": 40, **changes}
    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **fields))
    with torch.no_grad():
        for parameter in model.parameters():
            # Trained networks differ from their initial values everywhere, biases and norms included.
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(str(folder))
    tokenizer(folder)
    return folder


def tokenizer(folder: Path, **more: Any) -> None:
    """The files of a lower-casing WordPiece tokenizer."""
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
