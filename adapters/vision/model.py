"""transformers' network for a folder: its class, and every tensor of it from the folder's weights (law 1)."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters import values
from adapters.heads import grouped, is_head, is_head_anywhere
from adapters.network import without_hub
from adapters.unfilled import without_random_init
from adapters.vision.config import check_positions, library, reason, vision_of
from bench.card import Coverage
from bench.errors import BenchError

_CLASSIFIERS = re.compile(r"\w+For(?:Image|Video)Classification(?:WithTeacher)?")
INPUTS = ("pixel_values", "pixel_values_videos")
"""Arguments by which transformers' networks take images and clips."""
_INERT = frozenset((
    "num_batches_tracked", "position_ids", "relative_position_index", "relative_coords_table", "attn_mask", "inv_freq",
))  # fmt: skip
_QUANTISED = ("int8", "uint8", "int4", "uint4", "int2", "bits", "complex")
# A pooling layer or a norm that the weights lack may be built before it is known to be lacking.
_SLACK = 1 << 24
_FEW = 1024


@dataclass
class Model:
    """``whole`` is called; ``tower`` inside it (or the same) gives the features."""

    whole: Any
    tower: Any
    config: Any
    """The tower's."""
    name: str
    """transformers' class of the tower."""
    classifier: bool
    coverage: Coverage


def model_of(folder: Path, config: Any, stated: Mapping[str, Any], tensors: dict[str, Tensor]) -> Model:
    """The network that ``config`` describes, filled from ``tensors``; ``tensors`` is emptied on the way.

    Raises `BenchError` where the network takes no images, is larger than its weights, or a tensor of it is missing, of
    another shape, or without a place.
    """
    file, kind = folder / "config.json", str(stated.get("model_type"))
    transformers = library(folder, kind)
    base = _base(transformers, config)
    vision = vision_of(config)
    if base is None or (vision is None and _input(base) is None):
        raise BenchError(f"{folder} is a '{kind}' model, which has no network for images alone: bench reads those")
    if vision is None and getattr(config, "is_encoder_decoder", False) is True:
        raise BenchError(
            f"{folder} is a '{kind}' model, whose output is that of a decoder and no feature of the image: give the "
            f"checkpoint of its backbone"
        )
    check_positions(vision or config, file)
    tensors = _numbers(folder, tensors)
    made, classifier = base, False
    if vision is None and (own := _classifier(transformers, stated, config)) is not None:
        made, classifier = own, True
    _bounded(made, config, tensors, file)
    network, found = _filled(made, config, {}, tensors, folder)
    unpooled = bool(found.missing) and all(map(_pooling, found.missing))
    if unpooled and vision is None and not classifier and _takes(made, "add_pooling_layer"):
        network, found = _filled(made, config, {"add_pooling_layer": False}, tensors, folder)
    tower, prefix = (network, "") if vision is None else _tower(network, vision, folder)
    if classifier:
        tower = getattr(network, network.base_model_prefix, None)
        if tower is None or tower is network:
            raise BenchError(
                f"{folder}: transformers' {made.__name__} has no network of its own beneath its classifier"
            )
    coverage = _coverage(folder, made.__name__, network, prefix, found, classifier=classifier)
    values.check((tower if vision is not None else network).state_dict(), str(folder))
    if vision is not None:
        network = tower  # the tower for texts is not needed
    network.eval().requires_grad_(False)
    return Model(network, tower, vision or config, type(tower).__name__, classifier, coverage)


def _base(transformers: Any, config: Any) -> Any:
    try:
        found = transformers.MODEL_MAPPING[type(config)]
    except KeyError:
        return None
    return found[0] if isinstance(found, list | tuple) else found


def _input(made: Any) -> str | None:
    name = getattr(made, "main_input_name", None)
    return name if name in INPUTS else None


def _classifier(transformers: Any, stated: Mapping[str, Any], config: Any) -> Any:
    """The class with a classifier that the folder names, if it names one that belongs to its configuration."""
    named = stated.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    if not _CLASSIFIERS.fullmatch(name):
        return None
    found = getattr(transformers, name, None)
    return found if getattr(found, "config_class", None) is type(config) and _input(found) else None


def _takes(made: Any, argument: str) -> bool:
    return argument in inspect.signature(made.__init__).parameters


def _pooling(name: str) -> bool:
    return "pooler" in name.split(".")[:2]


def _numbers(folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float32 where they are floating-point. Refuses quantised ones."""
    odd = [n for n, t in tensors.items() if str(t.dtype).removeprefix("torch.").startswith(_QUANTISED)]
    odd = [n for n in odd if tensors[n].ndim > 0]
    if odd:
        dtype = str(tensors[odd[0]].dtype).removeprefix("torch.")
        raise BenchError(
            f"{folder}: {len(odd)} of its tensors hold {dtype}, such as {odd[0]}, where the network computes with "
            f"floating-point numbers: give the weights before that conversion"
        )
    found = {}
    for name in list(tensors):
        tensor = tensors.pop(name)
        found[name] = tensor.float() if tensor.is_floating_point() else tensor
    return found


class _TooLarge(Exception):
    pass


def _bounded(made: Any, config: Any, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Build the network without memory. Raises `BenchError` when it is far larger than its weights."""
    size = sum(tensor.numel() for tensor in tensors.values())
    plain, numbers, names = nn.Module.register_parameter, 2 * size + _SLACK, 8 * len(tensors) + _FEW

    def registered(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal numbers, names
        numbers -= 0 if parameter is None else parameter.numel()
        names -= 1
        if numbers < 0 or names < 0:
            raise _TooLarge
        plain(self, name, parameter)

    nn.Module.register_parameter = registered  # type: ignore[method-assign, assignment]
    try:
        with quiet(), without_random_init(), torch.device("meta"):
            made(config)
    except _TooLarge:
        raise BenchError(
            f"{file} describes a {made.__name__} far larger than the weights beside it, which are {len(tensors):,} "
            f"tensors of {size:,} numbers: they are not of one model"
        ) from None
    except Exception as error:  # a configuration may hold anything
        raise BenchError(f"{file} describes no network that {made.__name__} can be ({reason(error)})") from error
    finally:
        nn.Module.register_parameter = plain  # type: ignore[method-assign]


@dataclass
class _Found:
    missing: list[str]
    left: list[str]
    wrong: list[str]


def _filled(
    made: Any, config: Any, options: Mapping[str, Any], tensors: dict[str, Tensor], folder: Path
) -> tuple[Any, _Found]:
    """The network with ``tensors`` under the names of transformers 4 or 5, as it renames them itself."""
    try:
        with quiet(), without_hub():
            network, told = made.from_pretrained(
                None, config=config, state_dict=dict(tensors), output_loading_info=True, ignore_mismatched_sizes=True,
                **options,
            )  # fmt: skip
    except Exception as error:  # transformers' own have no common base
        raise BenchError(
            f"{folder}: its weights do not fill transformers' {made.__name__} ({reason(error)})"
        ) from error
    wrong = sorted(str(one[0] if isinstance(one, tuple | list) else one) for one in told["mismatched_keys"])
    missing = {str(name) for name in told["missing_keys"]}
    # What transformers itself is silent about when it is missing.
    silent = getattr(network, "_keys_to_ignore_on_load_missing", None) or ()
    for name, parameter in network.named_parameters():
        if parameter.is_meta or (name not in tensors and any(re.search(pattern, name) for pattern in silent)):
            missing.add(name)
    kept = [name for name in sorted(missing) if name.rpartition(".")[2] not in _INERT and name not in wrong]
    return network, _Found(kept, sorted(map(str, told["unexpected_keys"])), wrong)


def _tower(network: Any, vision: Any, folder: Path) -> tuple[Any, str]:
    """The part of a model of several towers that reads images, and its prefix."""
    for name, part in network.named_modules():
        if name and type(getattr(part, "config", None)) is type(vision) and (_input(part) or "vision" in name):
            return part, f"{name}."
    raise BenchError(f"{folder}: transformers' {type(network).__name__} has no tower that reads images alone")


def _coverage(folder: Path, name: str, network: Any, prefix: str, found: _Found, *, classifier: bool) -> Coverage:
    """The tensors accounted for. Raises `BenchError` for any that is missing, misfits or has no place."""
    state = [n for n in network.state_dict() if n.startswith(prefix) and n.rpartition(".")[2] not in _INERT]
    total = len(state)
    missing = [n for n in found.missing if n.startswith(prefix)]
    wrong = [n for n in found.wrong if n.startswith(prefix)]
    inside = [n for n in found.left if _inside(network, n, prefix)]
    if missing or wrong or inside:
        words = [f"fill {total - len(missing) - len(wrong)} of {total} tensors of transformers' {name}"]
        for what, names in (("missing", missing), ("wrong shape", wrong), ("without a place in it", inside)):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                words.append(f"{what} {', '.join(names[:3])}{more}")
        raise BenchError(f"{folder}: the weights {', '.join(words)}: its config.json and weights are not of one model")
    left = [n for n in found.left if n.rpartition(".")[2] not in _INERT]
    other = sorted({n for n in network.state_dict() if not n.startswith(prefix)}) if prefix else []
    heads = grouped([n for n in left if is_head_anywhere(n)])
    unused = [*grouped(other), *grouped([n for n in left if not is_head_anywhere(n)])]
    kinds = {n: "text encoder" for n in unused if n.startswith("text")}
    beneath = f"{network.base_model_prefix}."
    own = [n for n in state if n.startswith(beneath)] if classifier else state
    return Coverage(filled=len(own), total=len(own), heads=heads, unused=list(dict.fromkeys(unused)), kinds=kinds)


def _inside(network: Any, name: str, prefix: str) -> bool:
    """Whether a left-over name lies inside a part that the network has, as a further block of it would."""
    own = f"{network.base_model_prefix}."
    outer = {start.rstrip(".") for start in (prefix, own)}
    modules = dict(network.named_modules())
    for start in dict.fromkeys((prefix, own, "")):
        parts = name.removeprefix(start).split(".")
        if not name.startswith(start) or len(parts) < 2 or parts[0] in outer:
            continue
        if parts[-1] in _INERT or is_head(".".join(parts)) or is_head_anywhere(parts[-1]):
            return False
        if f"{start}{parts[0]}" in modules or (start == own and parts[0] in modules):
            return True
    return False


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports: what it has to say becomes a refusal or a note."""
    from transformers.utils import logging as reports

    level, bars = logging.root.manager.disable, reports.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    if bars:
        reports.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        if bars:
            reports.enable_progress_bar()
