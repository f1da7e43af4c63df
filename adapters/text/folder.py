"""A Hugging Face folder of a text encoder -> Backbone: weights by our own reader, every tensor accounted for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters import reader
from adapters.jsonfile import read_json
from adapters.options import refuse
from adapters.text.classifier import classes_of, classifier_of
from adapters.text.encoder import TextBackbone, positions
from adapters.text.pooling import pooling_of
from adapters.text.tokens import Tokens
from adapters.unfilled import without_random_init
from adapters.weightsets import answers, label, weight_sets
from bench.card import Card, Coverage
from bench.errors import BenchError

ENCODERS = {
    "bert": "BertModel",
    "distilbert": "DistilBertModel",
    "mobilebert": "MobileBertModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
    "electra": "ElectraModel",
    "albert": "AlbertModel",
    "mpnet": "MPNetModel",
}
"""``model_type`` of ``config.json`` -> transformers' class."""
_METHODS = ("distilbert", "mobilebert")
_ALWAYS = ("model_type", "architectures")
_LEFT_OUT = ("auto_map", "torch_dtype", "dtype", "quantization_config", "_attn_implementation", "attn_implementation")
_HEADS = re.compile(
    r"(?:.*\.)?(?:cls|classifier|pre_classifier|vocab_\w+|lm_head|qa_outputs|pooler|sop_classifier|predictions|"
    r"discriminator_predictions|generator_\w+|fit_dense\w*|logits)(?:\..*)?"
)
_COUNTED = ("position_ids", "token_type_ids")
"""Buffers that older versions stored: 0, 1, 2... and zeros."""
_MOST_LAYERS = 512


def is_text(folder: Path) -> bool:
    """Whether the folder's configuration is a text encoder's."""
    return folder.is_dir() and _config(folder).get("model_type") in ENCODERS


def load(
    folder: Path, spec: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False
) -> TextBackbone:
    """The encoder in ``folder``. Raises `BenchError` when a tensor of it is missing or of another shape (law 1)."""
    refuse("a text encoder's folder", arch=arch)
    stated = _config(folder)
    kind = str(stated["model_type"])
    container = reader.read(folder, trust=trust)
    config = _configuration(folder, kind, stated)
    tensors, found = _chosen(container.content, config, folder, weights_key)
    network, unused = _filled(folder, kind, config, tensors)
    classifier = classifier_of(kind, stated, tensors, int(config.hidden_size))
    pooling = pooling_of(folder, int(config.hidden_size), trust=trust)
    tokens = Tokens(folder, _longest(folder, config))
    vocabulary = max(tokens.backend.get_vocab().values(), default=0) + 1
    if vocabulary > config.vocab_size:
        raise BenchError(
            f"the tokenizer of {folder} has {vocabulary} tokens and the network embeds {config.vocab_size}: they are "
            f"not of one model"
        )
    notes = [] if pooling.stated else ["pooling: the folder states none; the mean of the last layer's tokens is taken"]
    if getattr(network, "pooler", None) is None:
        notes.append("the checkpoint has no pooler: the class token has no dense layer of its own")
    filled = len(network.state_dict()) + len(pooling.state_dict())
    card = Card(
        name=folder.resolve().name,
        spec=spec,
        method=kind if kind in _METHODS else None,
        architecture=f"{kind}-L{config.num_hidden_layers}-H{config.hidden_size}",
        family="text",
        dims={},
        feature="",
        weight_digest="",
        container=container.kind,
        layout=f"Hugging Face {kind}" + (f", prefix {found}" if found else ""),
        weights_key=found.rstrip(".") or None,
        coverage=Coverage(
            filled=filled,
            total=filled,
            heads=sorted({_grouped(name) for name in unused if _HEADS.fullmatch(name)}),
            unused=[name for name in unused if not _HEADS.fullmatch(name)],
        ),
        classes=classes_of(stated) if classifier is not None else None,
        hazards=container.hazards,
        notes=notes,
    )
    return TextBackbone(network, tokens, pooling, card, classifier)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_json(path, dict) if path.is_file() else {}


def _configuration(folder: Path, kind: str, stated: dict[str, Any]) -> Any:
    """transformers' configuration object; every field of the folder's that is not about code or precision."""
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise BenchError(
            f"{folder} is a text encoder, which needs transformers: pip install 'bench-representations[text]' ({error})"
        ) from None
    fields = {name: value for name, value in stated.items() if name not in _LEFT_OUT and name not in _ALWAYS}
    try:
        config = AutoConfig.for_model(kind, **fields)
        sizes = (config.hidden_size, config.num_hidden_layers, config.vocab_size, config.max_position_embeddings)
        sane = all(isinstance(size, int) and size > 0 for size in sizes) and config.num_hidden_layers <= _MOST_LAYERS
    except Exception as error:  # a configuration may hold anything
        first = str(error).partition("\n")[0][:160] or type(error).__name__
        raise BenchError(f"{folder / 'config.json'} describes no {kind} network ({first})") from error
    if not sane:
        raise BenchError(f"{folder / 'config.json'} describes a {kind} network of impossible size")
    return config


def _network(kind: str, config: Any, pooler: bool) -> torch.nn.Module:
    import transformers

    made = getattr(transformers, ENCODERS[kind])
    poolers = kind not in ("distilbert", "electra")
    network: torch.nn.Module = made(config, add_pooling_layer=pooler) if poolers else made(config)
    return network


def _chosen(content: Any, config: Any, folder: Path, weights_key: str | None) -> tuple[dict[str, Tensor], str]:
    """The encoder's tensors without their prefix, in today's names, and where they lay."""
    word = "embeddings.word_embeddings.weight"
    found: dict[str, dict[str, Tensor]] = {}
    for weights in weight_sets(content):
        for name in weights.tensors:
            if name == word or name.endswith(f".{word}"):
                prefix = name.removesuffix(word)
                inner = {_today(n): t for n, t in weights.tensors.items() if n.startswith(prefix)}
                # A tensor beside the encoder (a head) keeps its own name.
                own = {n.removeprefix(prefix): t for n, t in inner.items()}
                rest = {_today(n): t for n, t in weights.tensors.items() if not n.startswith(prefix)}
                found[label(weights.key, prefix) + ("." if prefix or weights.key else "")] = {**rest, **own}
    if weights_key is not None:
        found = {name: tensors for name, tensors in found.items() if answers(name.rstrip("."), weights_key)}
    if not found:
        asked = f" under --weights-key {weights_key}" if weights_key is not None else ""
        raise BenchError(f"{folder} holds no tensor {word}{asked}: it is no {config.model_type} encoder")
    if len(found) > 1:
        raise BenchError(
            f"{folder} holds {len(found)} text encoders ({', '.join(sorted(found)[:6])}): choose one with --weights-key"
        )
    name, tensors = next(iter(found.items()))
    return tensors, name


def _today(name: str) -> str:
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _filled(folder: Path, kind: str, config: Any, tensors: Mapping[str, Tensor]) -> tuple[torch.nn.Module, list[str]]:
    """The network with every tensor from the folder, and the names left over; shapes are checked before memory is
    taken."""
    try:
        with torch.device("meta"):
            shapes = {name: tuple(t.shape) for name, t in _network(kind, config, True).state_dict().items()}
    except (ValueError, TypeError, RuntimeError, KeyError, AttributeError, ZeroDivisionError) as error:
        first = str(error).partition("\n")[0][:160]
        raise BenchError(f"{folder / 'config.json'} describes no {kind} network ({first})") from error
    pooler = all(name in tensors for name in shapes if name.startswith("pooler."))
    needed = {name: shape for name, shape in shapes.items() if pooler or not name.startswith("pooler.")}
    missing = [name for name in needed if name not in tensors]
    wrong = [name for name, shape in needed.items() if name in tensors and tuple(tensors[name].shape) != shape]
    if missing:
        raise BenchError(
            f"{folder}: {len(missing)} of the {len(needed)} tensors of its {kind} network are not in its weights, "
            f"such as {missing[0]}: the folder's config.json and weights are not of one model, or part is lacking"
        )
    if wrong:
        shape = list(tensors[wrong[0]].shape)
        raise BenchError(
            f"{folder}: {len(wrong)} tensors have another shape than config.json says, such as {wrong[0]} "
            f"({shape}, not {list(needed[wrong[0]])}): the two are not of one model"
        )
    broken = [name for name in needed if tensors[name].is_floating_point() and not tensors[name].isfinite().all()]
    if broken:
        raise BenchError(
            f"{len(broken)} of the tensors of {folder} have NaN or infinite values ({', '.join(broken[:3])}): the "
            f"training diverged or the file is damaged"
        )
    with without_random_init():
        network = _network(kind, config, pooler)
    state = network.state_dict()
    network.load_state_dict({name: tensors[name].to(state[name].dtype) for name in needed}, strict=True)
    return network, [name for name in tensors if name not in needed and not name.endswith(_COUNTED)]


def _longest(folder: Path, config: Any) -> int:
    """Tokens of a text: as sentence-transformers was told, else the tokenizer, else the network's positions."""
    most = positions(config)
    stated = []
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        path = folder / name
        value = read_json(path, dict).get(key) if path.is_file() else None
        # "No limit" is written as 1e30.
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most:
            stated.append(value)
    return stated[0] if stated else most


def _grouped(name: str) -> str:
    return f"{name.partition('.')[0]}.*"
