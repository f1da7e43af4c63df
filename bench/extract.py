"""Extraction: one pass of a Backbone over a Dataset, or none when the store already holds what is wanted."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench.cpu import cpu_pass
from bench.dataset import DecodeError
from bench.device import Precision, forward_mode, is_out_of_memory, precision_of
from bench.errors import BenchError
from bench.filling import Filling, decoder
from bench.loader import default_workers
from bench.memorystore import MemoryStore
from bench.modality import noun_of
from bench.outputs import names_of, outputs
from bench.shards import Corrupt
from bench.store import FeatureStore, create_store, find_stores, shard_size
from bench.storedset import StoredFeatureSet

if TYPE_CHECKING:
    from bench.backbone import Backbone
    from bench.dataset import Dataset
    from bench.progress import Progress

QUOTA = "BENCH_CACHE_GB"
CPU_BATCH = 32
CUDA_BATCH = 256
"""The largest batch that is chosen by itself."""
SHOWN = 20
"""Corrupt images that are listed by path."""
ATTEMPTS = 3
"""Times that shards found damaged are made again before the disk is blamed."""


@dataclass(frozen=True)
class Extraction:
    """Features, and what getting them took."""

    features: StoredFeatureSet
    timings: dict[str, float]
    """Seconds: decode (summed over workers), forward, wait (for decoded images), write, total (wall clock)."""
    decoded: int
    """Images decoded by this process."""
    reused: int
    """Images whose features were in the store, or were put there meanwhile by another process."""
    corrupt: list[Corrupt]
    """Images left out because they cannot be decoded."""
    folders: list[Path]
    """Where the features are; empty for a live module, whose features stay in memory."""
    bytes: int
    """What the stores hold on disk."""

    def details(self) -> dict[str, Any]:
        """For `Measurement.details`: what was left out, when anything was."""
        if not self.corrupt:
            return {}
        return {"corrupt": len(self.corrupt), "corrupt_images": [bad.path for bad in self.corrupt[:SHOWN]]}


def extract(
    backbone: Backbone,
    dataset: Dataset,
    features: Sequence[str],
    *,
    device: torch.device,
    precision: str = "fp32",
    batch: int | None = None,
    workers: int | None = None,
    progress: Progress,
    max_corrupt: float = 0.01,
    rank: int = 0,
    world: int = 1,
    shard: int | None = None,
) -> Extraction:
    """The ``features`` (``pooled``, ``cls``, ``avg``, ``logits``, ``blocks4.cls``...) of every sample of ``dataset``.

    What the store holds is verified and used; only missing or damaged shards are forwarded, and every output of the
    network is stored, so that another suite finds it. ``batch`` counts for a store that is begun now; one that was
    begun with another keeps its own, since what a batch holds is part of what the features are. ``workers``: processes
    that decode (0: none). ``shard``: samples per shard of a store that is begun now. With ``world`` processes that call
    this alike on one file system, each begins with its own share of the shards and all return the whole.

    Corrupt images are listed and left out; refused when their share is above ``max_corrupt``. Also refused: an empty
    data set, a feature that the network lacks, features that are not finite, an image file that vanished, a full disk.
    """
    begun = time.perf_counter()
    n = len(dataset)
    if n == 0:
        raise BenchError(f"{dataset.name} {dataset.split} holds no {noun_of(dataset)}")
    if (batch or 1) < 1 or (workers or 0) < 0 or batch == 0:
        raise BenchError(f"--batch must be at least 1 and --workers at least 0, not {batch} and {workers}")
    kind = precision_of(precision)
    if not features:
        raise BenchError("no feature was asked for")
    names = names_of(backbone.card, features)
    # A live module stays where it is and keeps its features in memory: in a training loop they are used once.
    live = bool(getattr(backbone, "live", False))
    if live:
        device = getattr(backbone, "device", device)
    elif any(module.training for module in backbone.modules()):
        raise BenchError(f"'{backbone.card.name}' is in training mode: its features would depend on the batch")
    else:
        backbone.to(device)

    def refuse(corrupt: list[Corrupt]) -> None:
        if len(corrupt) > max_corrupt * n or len(corrupt) == n:
            raise BenchError(
                f"at least {len(corrupt)} of the {n} {noun_of(dataset)} of {dataset.name} {dataset.split} cannot be "
                f"decoded, more than the {max_corrupt:.2%} allowed: {_listed(corrupt)}: mend or remove them"
            )

    filling = Filling(
        backbone,
        dataset,
        device=device,
        precision=kind,
        workers=default_workers(device) if workers is None else workers,
        progress=progress,
        rank=rank,
        world=world,
        refuse=refuse,
    )

    def sizes() -> tuple[int, int]:
        size = batch or choose_batch(backbone, dataset, device, kind, names)
        row = 4 * sum(backbone.card.dims.get(name, 0) for name in names)
        return size, -(-shard // size) * size if shard else shard_size(n, size, row)

    homes: Mapping[str, FeatureStore | MemoryStore]
    if live:
        size, rows = sizes()
        memory = MemoryStore(n, batch=size, shard=rows)
        homes = dict.fromkeys(features, memory)
        filling.fill(memory, names)
    else:
        homes = _homes(backbone, dataset, kind, features, names, sizes)
        for store in _distinct(homes):
            if isinstance(store, FeatureStore):
                with cpu_pass(backbone, device):
                    _complete(store, [name for name in features if homes[name] is store], filling, batch, progress)
    found = StoredFeatureSet(dataset, dict(homes))
    refuse(found.corrupt)
    if found.corrupt:
        progress.warn(
            f"{len(found.corrupt)} of the {n} {noun_of(dataset)} of {dataset.name} {dataset.split} cannot be decoded "
            f"and are left out: {_listed(found.corrupt)}"
        )
    if not live:
        keep_quota(progress)
    tally = filling.tally
    stores = [store for store in _distinct(homes) if isinstance(store, FeatureStore)]
    return Extraction(
        features=found,
        timings={
            "decode": tally.decode,
            "forward": tally.forward,
            "wait": tally.wait,
            "write": tally.write,
            "total": time.perf_counter() - begun,
        },
        decoded=tally.decoded,
        reused=max(0, n - len(found.corrupt) - tally.decoded),
        corrupt=found.corrupt,
        folders=[store.folder for store in stores],
        bytes=sum(store.bytes() for store in stores),
    )


def keep_quota(progress: Progress) -> None:
    """Trim the feature store to ``$BENCH_CACHE_GB`` (10^9 bytes), where that is set; stores in use stay."""
    given = os.environ.get(QUOTA)
    if not given:
        return
    from bench.housekeeping import trim

    try:
        limit = float(given)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise BenchError(f"{QUOTA}={given} is no number of gigabytes")
    report = trim(limit * 1e9)
    if report.removed:
        progress.say(f"{len(report.removed)} stores, least recently used, were removed to keep {QUOTA}={given}")


def choose_batch(
    backbone: Backbone, dataset: Dataset, device: torch.device, precision: Precision, names: Sequence[str]
) -> int:
    """Images per forward: a measured constant on a CPU; on a GPU the power of two that fits half the free memory."""
    if device.type != "cuda":
        return CPU_BATCH
    image = _first_image(backbone, dataset)
    peaks = []
    for count in (8, 16):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        try:
            with forward_mode(device, precision):
                outputs(backbone, image.expand(count, *image.shape).to(device), names)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return 4 if count == 8 else 8
        peaks.append(torch.cuda.max_memory_allocated(device) - before)
    each = max(1, (peaks[1] - peaks[0]) // 8)
    fits = max(8, torch.cuda.mem_get_info(device)[0] // 2 // each)
    return min(CUDA_BATCH, 1 << (int(fits).bit_length() - 1))


def _first_image(backbone: Backbone, dataset: Dataset) -> torch.Tensor:
    preprocess = decoder(backbone, dataset).preprocess
    for index in range(len(dataset)):
        try:
            return preprocess(dataset.image(index))
        except (DecodeError, OSError):
            continue  # counted and named by the pass itself
    raise BenchError(f"none of the {noun_of(dataset)} of {dataset.name} {dataset.split} can be decoded")


def _homes(
    backbone: Backbone,
    dataset: Dataset,
    precision: Precision,
    wanted: Sequence[str],
    names: Sequence[str],
    sizes: Callable[[], tuple[int, int]],
) -> dict[str, FeatureStore]:
    """Which store serves each name: one that has them all, else complete ones and a new one for the rest."""
    stores = list(find_stores(backbone.card, dataset, precision))
    able = [store for store in stores if set(wanted) <= set(store.manifest.names)]
    if able:
        return dict.fromkeys(wanted, min(able, key=lambda store: len(store.missing())))
    homes: dict[str, FeatureStore] = {}
    for store in stores:
        if not store.missing():
            homes |= {name: store for name in wanted if name in store.manifest.names and name not in homes}
    lacking = [name for name in wanted if name not in homes]
    # Beside a store that has the usual outputs, a new one holds only what was missing.
    new = lacking if homes else names
    batch, shard = sizes()
    created = create_store(backbone.card, dataset, precision, new, batch=batch, shard=shard)
    return homes | dict.fromkeys(lacking, created)


def _complete(
    store: FeatureStore, names: Sequence[str], filling: Filling, batch: int | None, progress: Progress
) -> None:
    """Verify what is there and make what is not."""
    for _ in range(ATTEMPTS):
        with progress.stage(f"check stored features of {store.manifest.dataset}", store.shards, "shards") as stage:
            damaged = store.verify(names, advance=stage.advance)
        if damaged:
            progress.warn(f"{len(damaged)} damaged shards of {store.folder} were removed and are made again")
        if not store.missing():
            store.touch()
            return
        if batch is not None and batch != store.batch:
            progress.say(f"{store.folder} was begun with batches of {store.batch} and keeps them")
        filling.fill(store, store.manifest.names)
    raise BenchError(f"the shards of {store.folder} are damaged as soon as they are written: check the disk")


def _distinct(homes: Mapping[str, FeatureStore | MemoryStore]) -> list[FeatureStore | MemoryStore]:
    return list({id(store): store for store in homes.values()}.values())


def _listed(corrupt: Sequence[Corrupt]) -> str:
    shown = "; ".join(f"{bad.path} ({bad.reason})" for bad in corrupt[:SHOWN])
    return shown + (f"; and {len(corrupt) - SHOWN} more" if len(corrupt) > SHOWN else "")
