"""A weight file, with ``--arch`` or with an architecture found from its names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from adapters import classifiers, eightbits, hf_swin, papers, positions, reader, sniff, texts, timm_folder
from adapters.filling import filled
from adapters.huggingface import refined
from adapters.layout import CIFAR10, CIFAR100, Layout
from adapters.layouts import recognise
from adapters.leftover import averages, coverage
from adapters.lightness import LightnessBackbone
from adapters.matching import match
from adapters.network_backbone import NetworkBackbone
from adapters.networks.network import Network
from adapters.text.folder import is_text
from adapters.text.folder import load as load_text
from adapters.timm_backbone import Feature, TimmBackbone, traits, transform_of
from adapters.vision.folder import is_vision, otherwise
from adapters.vision.folder import load as load_vision
from adapters.weightsets import WeightSet, shortened, weight_sets
from bench.backbone import Backbone
from bench.card import Card, Transform
from bench.errors import BenchError
from bench.files import at_home, regular
from bench.transform import resized

_SMALL = 64


def load(rest: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False) -> Backbone:
    """The network in a file. Raises `BenchError` when its weights do not fill an architecture (law 1)."""
    path, choices = at_home(rest), ""
    if not path.exists() and "?" in rest:
        start, _, choices = rest.partition("?")
        path = at_home(start)
    if not path.exists():
        raise BenchError(f"there is no file or folder {path}")
    if not path.is_dir():
        if not regular(path).st_size:
            raise BenchError(f"{path} is empty: it holds no weights")
        if sniff.is_onnx(path):
            from adapters import onnx_model

            return onnx_model.load(path, choices, spec=rest, arch=arch, weights_key=weights_key)
    if choices:
        raise BenchError(f"?{choices[:80]} is for ONNX graphs, and {path} is none: leave it out")
    if is_text(path):
        return load_text(path, rest, arch=arch, weights_key=weights_key, trust=trust)
    if arch is None and is_vision(path):
        return load_vision(path, rest, arch=arch, weights_key=weights_key, trust=trust)
    container = reader.read(path, trust=trust)
    sets, eight = eightbits.widened(weight_sets(container.content), str(path))
    names = _names(sets, container.content)
    told = timm_folder.stated(path) if arch is None else None
    try:
        layout = papers.of_file(refined(recognise(names), path, names), path)
        if told is not None and told.paper is not None:
            layout = papers.of_release(layout, told.method, told.paper, told.transform)
        asked = told.arch if told is not None else arch
        chosen = match(sets, arch=asked, weights_key=weights_key, file=str(path), layout=layout)
    except BenchError as error:
        # What timm has under no name, or computes otherwise, may still be a network of the folder's own class.
        other = otherwise(path, rest, trust=trust) if arch is None and weights_key is None else None
        if other is None:
            raise
        other.card.notes.append(f"read by transformers, for among timm's networks {_reason(error, path)}")
        return other
    kind_of_file, hazards = container.kind, container.hazards
    tensors = {name: chosen.tensors[key] for name, key in chosen.fit.mapped.items()}
    linear, chosen = classifiers.beside(chosen, str(path))
    chosen = chosen._replace(tensors={})
    del container, sets  # what the network does not need (an optimiser's state, other weight sets) is freed before
    network = filled(chosen.architecture, chosen.outline, tensors, str(path))
    card = Card(
        name=path.stem,
        spec=rest,
        architecture=str(chosen.architecture),
        family="module",
        dims={},
        feature="",
        transform=None,
        weight_digest="",
        container=kind_of_file,
        method=layout.method,
        layout=chosen.spoken,
        weights_key=chosen.label or None,
        weight_sets=shortened(chosen.whole),
        averages=averages(chosen),
        architecture_from="inferred from names and shapes"
        if chosen.inferred
        else f"as {'--arch' if told is None else 'config.json'} says",
        coverage=coverage(chosen),
        hazards=hazards,
        notes=[*chosen.notes, *(note for note in (layout.note, eight) if note)],
    )
    if chosen.architecture.torchvision:
        from adapters.torchvision_backbone import TorchvisionBackbone

        backbone: Backbone = TorchvisionBackbone(network, card)
    elif isinstance(network, Network):
        own = f"{network.head_name}.weight" in chosen.fit.mapped
        kind = LightnessBackbone if network.lightness else NetworkBackbone
        backbone = kind(network, card, classifier=own and layout.classifier)
    else:
        positions.install(network, layout.positions)
        if layout.padded_first:
            hf_swin.pad_first(network)
        backbone = TimmBackbone(network, card, feature=_feature(network, layout), linear=linear)
    if told is not None and told.transform is not None and told.paper is None:
        transform, origin = told.transform, None
    else:
        transform, origin = _transform(backbone.card.family, network, layout)
    notes = [*backbone.card.notes, *([origin] if origin else [])]
    backbone.card = backbone.card.model_copy(
        update={"transform": transform, "notes": notes, "classes": _classes(backbone)}
    )
    texts.attach(backbone, path, layout.name, chosen.label, names, trust=trust)
    return backbone


def _reason(error: BenchError, path: Path) -> str:
    """What a refusal says of a file, without the remedy, for which there is no need any more."""
    return str(error).removeprefix(str(path)).removeprefix(":").partition(": name ")[0].strip()[:160]


def _names(sets: list[WeightSet], content: object) -> dict[str, tuple[int, ...]]:
    """What layouts are told by: ``set/tensor`` and shape of every tensor, and the names of the file's other members."""
    members: dict[str, tuple[int, ...]] = {str(name): () for name in content} if isinstance(content, Mapping) else {}
    return members | {
        f"{weights.key}/{name}": tuple(tensor.shape) for weights in sets for name, tensor in weights.tensors.items()
    }


def _feature(network: torch.nn.Module, layout: Layout) -> Feature:
    """The method's frozen feature; convolutional networks, and those without a class token, have one only."""
    own = traits(network)
    if layout.feature is None or own.family == "cnn" or (layout.feature.startswith("cls") and not own.class_token):
        return "head"
    return layout.feature


def _transform(family: str, network: torch.nn.Module, layout: Layout) -> tuple[Transform, str | None]:
    """The method's transform; for a file that does not tell its method, what most evaluation code uses."""
    size = _native_size(network)
    small = size <= _SMALL  # images of such sizes are used whole, whatever the method's transform for large ones
    if layout.transform is not None and (layout.at_native_size or not small or layout.transform.crop == size):
        return resized(layout.transform, size) if layout.at_native_size else layout.transform, None
    if layout.timm_transform:
        return transform_of(network), "input transform: timm's own for this architecture"
    if small:
        known, name = (CIFAR100, "CIFAR-100") if getattr(network, "num_classes", 0) == 100 else (CIFAR10, "CIFAR-10")
        return resized(known, size), f"the file does not state its input transform: assumed {name}'s at {size} pixels"
    transform = resized(Transform(interpolation="bilinear" if family == "cnn" else "bicubic"), size)
    return transform, f"the file does not state its input transform: assumed {transform.describe()}"


def _native_size(network: torch.nn.Module) -> int:
    """The input size in pixels that the network's tensors speak of; 224 where none does."""
    for holder in (network, getattr(network, "patch_embed", None)):
        own = getattr(holder, "img_size", None)
        if own is not None:
            return int(own[0]) if isinstance(own, tuple | list) else int(own)
    return network.input_size if isinstance(network, Network) else 224


def _classes(backbone: Backbone) -> str | None:
    """The label set of the file's own classifier, as far as its size and architecture tell."""
    count = backbone.card.dims.get("logits")
    small = isinstance(getattr(backbone, "network", None), Network)
    return {1000: "imagenet-1k", 100: "cifar100" if small else None}.get(count or 0)
