"""The classifier that a fine-tuned checkpoint brings: the head of transformers' ``...ForSequenceClassification``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_POOLED = ("bert", "mobilebert", "albert")
_DENSE: dict[str, tuple[str, str, type[nn.Module]]] = {
    "distilbert": ("pre_classifier", "classifier", nn.ReLU),
    "roberta": ("classifier.dense", "classifier.out_proj", nn.Tanh),
    "xlm-roberta": ("classifier.dense", "classifier.out_proj", nn.Tanh),
    "mpnet": ("classifier.dense", "classifier.out_proj", nn.Tanh),
    "electra": ("classifier.dense", "classifier.out_proj", nn.GELU),
}
"""The dense layer on the first token, the last layer, and what is between them."""


class Classifier(nn.Module):
    """Logits [B, C] from the first token [B, D], or (``pooled``) from the pooler's output [B, D]."""

    def __init__(self, layers: nn.Module, pooled: bool) -> None:
        super().__init__()
        self.layers = layers
        self.pooled = pooled

    def forward(self, rows: Tensor) -> Tensor:
        made: Tensor = self.layers(rows)
        return made


def classifier_of(kind: str, stated: Mapping[str, Any], tensors: Mapping[str, Tensor], width: int) -> Classifier | None:
    """The classifier in ``tensors`` of a network of ``kind``; None where the configuration or the weights have none.

    A regression (one output, or said to be one) is no classifier.
    """
    named = any(str(one).endswith("ForSequenceClassification") for one in stated.get("architectures") or [])
    if not named or stated.get("problem_type") == "regression":
        return None
    if kind in _POOLED:
        last = _linear(tensors, "classifier", width)
        pooler = any(name.startswith("pooler.") for name in tensors) or not stated.get("classifier_activation", True)
        return Classifier(last, pooled=True) if last is not None and pooler else None
    if kind not in _DENSE:
        return None
    first, final, between = _DENSE[kind]
    dense, last = _linear(tensors, first, width), _linear(tensors, final, width)
    if dense is None or last is None or dense.out_features != width:
        return None
    return Classifier(nn.Sequential(dense, between(), last), pooled=False)


def classes_of(stated: Mapping[str, Any]) -> str | None:
    """The label set, where the configuration says which task of GLUE the network was fine-tuned on."""
    task = stated.get("finetuning_task")
    return f"glue-{task.replace('-', '').lower()}" if isinstance(task, str) and task else None


def _linear(tensors: Mapping[str, Tensor], name: str, width: int) -> nn.Linear | None:
    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    if weight is None or bias is None or weight.ndim != 2 or weight.shape[1] != width or len(weight) < 2:
        return None
    layer = nn.Linear(width, len(weight))
    layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return layer
