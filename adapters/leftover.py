"""What a container holds beside the weights that were read, in words: other weight sets, heads, towers for text."""

from __future__ import annotations

import re

from adapters.matching import Match
from adapters.weightsets import averaged, label, shortened
from bench.card import Coverage

# Methods whose teacher or target is a running average of the trained network.
_AVERAGING = frozenset(("dino", "ibot", "dinov2", "dinov3", "ijepa", "msn", "data2vec", "byol"))
_AVERAGED = re.compile(r"teacher\w*|target\w*")

# A part of a name and what lies there, first match; ``head`` and ``fc`` are told by the method.
_HEADS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r"(?:\w+_)?(?:projector|projection|projection_head|proj_head)(?:_\w+|\d+)?|contrast_head|neck",
            "projection head",
        ),
        (r"dino_head|ibot_head|mlp_head|last_layer", "projection head"),
        (r"(?:\w+_)?predictor\w*", "predictor"),
        (r"(?:\w+_)?prototypes?\w*", "prototypes"),
        (r"(?:\w+_)?decoders?\w*|pred|pred_head", "decoder"),
        (r"lm_head", "head that predicts visual tokens"),
        (r"mask\w*_(?:token|embed)|mask_token", "mask token"),
        (r"queue\w*|(?:\w+_)?(?:memory|bank|memory_bank)\w*", "queue of negatives"),
        (r"center", "centre of the outputs"),
        (r"logit_(?:scale|bias)", "temperature of the loss"),
        (r"(?:\w+_)?(?:loss|criterion|metric)\w*", "part of the loss"),
        (r"(?:\w+_)?(?:classifier|classif|classification_head|logits|linear_probe)(?:_\w+)?", "classifier"),
        (r"aux\w*|AuxLogits", "auxiliary classifier"),
        (r"ema_\w*", "counter"),
    )
)
_OPEN = re.compile(r"(?:\w+_)?(?:fc|head|heads|linear)(?:_\w+)?")
_FOREIGN: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"text\w*|token_embedding|ln_final|positional_embedding|bert"), "text encoder"),
    (re.compile(r"input_resolution|context_length|vocab_size"), "stored number"),
    (re.compile(r"rpn|roi_heads?|fpn|proposal_generator|bbox_head|mask_head|decode_head"), "detector"),
)


def averages(chosen: Match) -> list[str]:
    """Of the weight sets that fill a network, as ``--weights-key`` takes them, those that are running averages."""
    method = chosen.layout.method in _AVERAGING

    def is_one(name: str) -> bool:
        return averaged(name) or (method and any(_AVERAGED.fullmatch(part) for part in name.split(".")))

    return [key for key, name in zip(shortened(chosen.whole), chosen.whole, strict=True) if is_one(name)]


def coverage(chosen: Match) -> Coverage:
    """How the file's tensors filled the network, and what each left-over group of them is."""
    found = chosen.fit
    kinds = {}
    for group in found.heads:
        kinds[group] = _head(group, pretraining=not chosen.layout.classifier)
    for group in found.unused:
        kind = "another weight set" if _of_another_set(group, chosen) else _foreign(group, chosen)
        if kind is not None:
            kinds[group] = kind
    return Coverage(filled=found.filled, total=found.needed, heads=found.heads, unused=found.unused, kinds=kinds)


def _parts(group: str) -> list[str]:
    """The parts of a group's name, last first."""
    return group.removesuffix(".*").split(".")[::-1]


def _head(group: str, *, pretraining: bool) -> str:
    for part in _parts(group):
        for pattern, words in _HEADS:
            if pattern.fullmatch(part):
                return words
        if _OPEN.fullmatch(part):
            return "projection head" if pretraining else "classifier"
    return "head"


def _foreign(group: str, chosen: Match) -> str | None:
    if chosen.layout.method in ("clip", "siglip", "align") and _parts(group)[0] == "transformer":
        return "text encoder"
    return next((words for part in _parts(group) for pattern, words in _FOREIGN if pattern.fullmatch(part)), None)


def _of_another_set(group: str, chosen: Match) -> bool:
    here = label(chosen.key, group.removesuffix(".*"))
    return any(f"{name}.".startswith(f"{here}.") or here.startswith(f"{name}.") for name in chosen.whole[1:] if name)
