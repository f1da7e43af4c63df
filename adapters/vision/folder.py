"""A Hugging Face folder of any image or video network that the installed transformers knows -> Backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from adapters import eightbits, reader
from adapters.huggingface import METHODS
from adapters.options import refuse
from adapters.processor import beyond, swaps, transform_of
from adapters.processor import stated as processor_beside
from adapters.vision.backbone import VisionBackbone
from adapters.vision.config import configuration, library, stated_by
from adapters.vision.model import model_of
from adapters.vision.reading import read
from adapters.weightsets import WeightSet, weight_sets
from bench.card import Card, Transform
from bench.errors import BenchError
from bench.transform import resized

TRANSLATED = frozenset((
    "vit", "deit", "vit_mae", "vit_msn", "ijepa", "beit", "data2vec-vision", "dinov2", "dinov2_with_registers",
    "dinov3_vit", "dinov3_convnext", "clip", "clip_vision_model", "siglip", "siglip_vision_model", "swin", "swinv2",
    "resnet", "convnext", "convnextv2", "align", "align_vision_model", "timm_wrapper",
))  # fmt: skip
"""Model types whose names are translated to timm's: those folders are read without transformers."""

_GELU: dict[str, tuple[Any, ...]] = {"hidden_act": ("gelu",)}
_ASSUMED: dict[str, dict[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("beit", "data2vec-vision", "convnext", "convnextv2", "dinov3_convnext"), _GELU),
    "resnet": {"hidden_act": ("relu",), "downsample_in_bottleneck": (False,), "downsample_in_first_stage": (False,)},
    "dinov3_vit": {"rope_theta": (100,)},
    "align": {"hidden_act": ("swish", "silu"), "batch_norm_eps": (1e-3,)},
}
"""Of translated types, what no tensor's shape tells and timm's network of that shape has."""


def is_vision(folder: Path) -> bool:
    """Whether the folder's configuration describes a network that only transformers can build."""
    stated = stated_by(folder) if folder.is_dir() else {}
    kind = stated.get("model_type")
    if not isinstance(kind, str) or not kind:
        return False
    if kind not in TRANSLATED or _deviates(kind, stated):
        return True
    return swaps(processor_beside(folder / "preprocessor_config.json"))


def _deviates(kind: str, stated: dict[str, Any]) -> bool:
    """Whether a translated network would compute something else than the configuration says."""
    own = inner if isinstance(inner := stated.get("vision_config"), dict) else stated
    assumed = dict(_ASSUMED.get(kind, {}))
    if kind == "dinov3_vit":
        assumed["hidden_act"] = ("silu",) if own.get("use_gated_mlp") is True else ("gelu",)
    return any(name in own and own[name] not in values for name, values in assumed.items())


def otherwise(folder: Path, spec: str, *, trust: bool = False) -> VisionBackbone | None:
    """The network in a folder whose names could not be translated, None where transformers cannot read it either."""
    kind = stated_by(folder).get("model_type") if folder.is_dir() else None
    if kind not in TRANSLATED or kind == "timm_wrapper":
        return None
    try:
        return load(folder, spec, trust=trust)
    except BenchError:  # the first refusal is about the weights, and says more
        return None


def load(
    folder: Path, spec: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False
) -> VisionBackbone:
    """The image network in ``folder``.

    Raises `BenchError` for a model type that transformers does not know, a network that takes no images alone, and
    weights that do not fill it.
    """
    stated = stated_by(folder)
    kind = str(stated.get("model_type"))
    refuse(f"a '{kind}' folder", arch=arch, weights_key=weights_key)
    config = configuration(folder, stated)
    container = reader.read(folder, trust=trust)
    sets, eight = eightbits.widened(weight_sets(container.content), str(folder))
    model = model_of(folder, config, stated, _tensors(folder, sets))
    reading = read(model, str(folder))
    notes: list[str] = [eight] if eight else []
    transform, reading.blue_first = _transform(folder, stated, model.config, reading.size, notes)
    if "auto_map" in stated:
        container.hazards.append("config.json names Python code (auto_map): not read, not executed")
    classes = int(getattr(model.config, "num_labels", 0) or 0) if model.classifier else 0
    card = Card(
        name=folder.resolve().name,
        spec=spec,
        method=METHODS.get(kind),
        architecture=f"transformers:{model.name}",
        family="module",
        dims={},
        feature="",
        transform=transform,
        weight_digest="",
        container=container.kind,
        layout=f"Hugging Face {kind}, by transformers",
        architecture_from="as config.json says",
        coverage=model.coverage,
        classes="imagenet-1k" if classes == 1000 else None,
        hazards=container.hazards,
        notes=notes,
    )
    return VisionBackbone(model, reading, card)


def _tensors(folder: Path, found: list[WeightSet]) -> dict[str, Tensor]:
    """The folder's one set of tensors."""
    sets = [weights for weights in found if weights.tensors]
    if hollow := {name: kind for weights in sets for name, kind in weights.hollow.items()}:
        raise BenchError(
            f"{folder}: {len(hollow)} of its tensors are {next(iter(hollow.values()))}, without the values that a "
            f"network computes with: save them dense and unquantised"
        )
    if len(sets) != 1:
        raise BenchError(
            f"{folder} holds {len(sets)} sets of weights where transformers saves one: give its file alone"
        )
    return dict(sets[0].tensors)


def _transform(
    folder: Path, stated: dict[str, Any], config: Any, size: tuple[int, int], notes: list[str]
) -> tuple[Transform, bool]:
    """What the folder's processor does, else what the class's own does without being told, at the network's size.

    With it, whether blue comes first then.
    """
    stating = folder / "preprocessor_config.json"
    said = processor_beside(stating)
    try:
        transform = transform_of(said)
    except (ValueError, TypeError, OverflowError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BenchError(f"{stating} states an input transform that cannot be: {first}") from None
    if transform is None:
        transformers = library(folder, str(stated.get("model_type")))
        names = dict.fromkeys((str(stated.get("model_type")), str(getattr(config, "model_type", ""))))
        found: Transform | None = None
        for name in names:
            said, found = _default(transformers, name)
            if found is not None:
                break
        whose = "ImageNet's usual one" if found is None else "that of its class"
        transform = _at(found or Transform(), size)
        notes.append(f"the folder does not state its input transform: {whose} is taken, {transform.describe()}")
    for what in beyond(said):
        notes.append(f"its own processor {what}, which is not done here: {transform.describe()}")
    if swaps(said):
        notes.append("its own processor gives blue first: red and blue are swapped where images enter the network")
    return transform, swaps(said)


def _at(transform: Transform, size: tuple[int, int]) -> Transform:
    if size[0] == size[1]:
        return resized(transform, size[0])
    return transform.model_copy(update={"resize": size, "crop": None})


def _default(transformers: Any, kind: str) -> tuple[dict[str, Any], Transform | None]:
    """(configuration, transform) of the processor that belongs to a model type, as it is without being told."""
    try:
        made = transformers.IMAGE_PROCESSOR_MAPPING[transformers.CONFIG_MAPPING[kind]]
        made = next(one for one in (made.values() if isinstance(made, dict) else made) if one is not None)
        said: dict[str, Any] = made().to_dict()
        return said, transform_of(said)
    except Exception:  # a processor may need a package that is not here, or none be registered
        return {}, None
