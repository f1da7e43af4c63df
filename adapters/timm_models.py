"""``timm:NAME``: a timm model with its pretrained weights, from the local cache or the hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from adapters import papers, positions, resolution, values
from adapters.nearby import nearest
from adapters.network import hub_from_cache, offline
from adapters.options import refuse
from adapters.timm_backbone import TimmBackbone, backbone_tensors, create, transform_of
from bench.backbone import Backbone
from bench.card import Card, Coverage
from bench.errors import BenchError

# The label sets that timm's own tags speak of.
_CLASSES = {1000: "imagenet-1k", 21841: "imagenet-22k", 21843: "imagenet-21k", 11821: "imagenet-12k"}
_METHODS = r"mae|dino|dinov2|dinov3|clip|beit|beitv2|data2vec|mocov3|ijepa|siglip|swav|fcmae|simmim"


def load(rest: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False) -> Backbone:
    """timm's model ``rest`` (``NAME`` or ``NAME.TAG``, optionally ``@SIZE``) with pretrained weights, never random."""
    refuse("timm", arch=arch, weights_key=weights_key)
    name, size = resolution.split(rest)
    config = _config(name)
    network = _pretrained(name, config)
    values.check(network.state_dict(), f"the weights of timm:{name}")
    method, own = method_of(config), transform_of(network)
    paper = papers.of_tag(method, str(config["architecture"]), str(config.get("tag") or ""), own)
    notes = []
    if paper is not None:
        positions.install(network, paper.positions)
        if paper.transform != own:
            notes.append(f"input transform of {method}'s own evaluation, not timm's ({own.describe()})")
    # timm loads strictly, so all that the network has came from the file.
    filled = len(backbone_tensors(network))
    card = Card(
        name=name,
        spec=f"timm:{rest}",
        method=method,
        architecture=str(config["architecture"]),
        family="module",
        dims={},
        feature="",
        transform=own if paper is None else paper.transform,
        weight_digest="",
        container="timm hub",
        layout="timm",
        weights_key=config.get("tag") or None,
        coverage=Coverage(filled=filled, total=filled),
        classes=_CLASSES.get(int(getattr(network, "num_classes", 0) or 0)),
        notes=notes,
    )
    feature = papers.feature_of(paper, network) if paper is not None else "head"
    return resolution.at(TimmBackbone(network, card, feature=feature), size)


def _config(name: str) -> dict[str, Any]:
    """timm's description of the pretrained weights; refuses unknown names, and architectures without weights."""
    import timm
    from timm.models import get_pretrained_cfg, is_model

    base, _, tag = name.partition(".")
    if not is_model(base):
        raise BenchError(f"timm has no model '{name}'{nearest(base, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}*") if known.partition(".")[0] == base]
    if tag and tag not in tags:
        raise BenchError(f"timm has no weights '{tag}' for {base}{nearest(tag, tags)}")
    if not tags:
        raise BenchError(
            f"timm has no pretrained weights for '{name}', and random ones are never evaluated: give a checkpoint file "
            f"with --arch {name}"
        )
    config: dict[str, Any] = get_pretrained_cfg(name).to_dict()
    return config


def _pretrained(name: str, config: dict[str, Any]) -> Any:
    if offline() and not config.get("hf_hub_id") and not _cached_file(str(config.get("url") or "")):
        raise BenchError(_unobtainable(name, config, "BENCH_OFFLINE is set and the file is not in torch's cache"))
    try:
        with hub_from_cache():
            return create(name, pretrained=True)
    except BenchError:
        raise
    except Exception as error:  # the hub's client, urllib and the readers have no common base
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        if offline() and type(error).__name__ in ("LocalEntryNotFoundError", "OfflineModeIsEnabled"):
            reason = "BENCH_OFFLINE is set and it is not in the hub's local cache"
        raise BenchError(_unobtainable(name, config, reason)) from error


def _unobtainable(name: str, config: dict[str, Any], reason: str) -> str:
    source = config.get("hf_hub_id") or config.get("url") or "an unknown place"
    return (
        f"the weights of timm:{name} cannot be had from {source} ({reason.rstrip('.')[:200]}): run once where that can "
        f"be reached, or give the weight file itself with --arch {config['architecture']}"
    )


def _cached_file(url: str) -> bool:
    import torch

    return bool(url) and (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file()


def method_of(config: dict[str, Any]) -> str | None:
    """The pretraining that the tag names; fine-tuned and plain classifiers are supervised."""
    tag = str(config.get("tag") or "")
    fine_tuned = re.search(r"_ft_|(?:^|_)in(?:1k|12k|21k|22k)$", tag)
    named = re.match(rf"({_METHODS})(?=_|$)", tag) or re.search(rf"_({_METHODS})(?=_|$)", str(config["architecture"]))
    if named is not None and not (fine_tuned and config.get("num_classes")):
        return named[1]
    return "supervised" if config.get("num_classes") else named[1] if named else None
