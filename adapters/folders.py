"""Folders of weights: Hugging Face's, whole or in shards, and those of torch.distributed.checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapters.container import Container, replaced
from adapters.unpickling import Opaque, loads
from bench.errors import BenchError

_SINGLE = ("model.safetensors", "pytorch_model.bin")
_LARGEST_INDEX = 64 << 20
_CHECKPOINT = "torch.distributed.checkpoint"


def read_folder(folder: Path, read: Callable[[Path], Container]) -> Container:
    """The weights of a folder; ``read`` reads one of its files.

    Raises `BenchError` when it has none, or when a part lies outside of it.
    """
    if (folder / ".metadata").is_file():
        try:
            return _distributed(folder)
        except BenchError:
            raise
        except Exception as error:
            raise BenchError(
                f"{folder} is a damaged {_CHECKPOINT} folder ({type(error).__name__}): save it again"
            ) from error
    for name in _SINGLE:
        if (folder / f"{name}.index.json").is_file():
            return _sharded(folder, f"{name}.index.json", read)
        if (folder / name).is_file():
            inner = read(inside(folder, name))
            return Container(f"Hugging Face folder, {inner.kind}", inner.content, inner.hazards)
    if (folder / "latest").is_file() or any(folder.glob("*model_states.pt")):
        raise BenchError(
            f"{folder} is a folder of DeepSpeed, whose parts are spread over its files: put them together with the "
            f"zero_to_fp32.py that lies in it, or give mp_rank_00_model_states.pt where ZeRO's stage is below 3"
        )
    raise BenchError(f"{folder} is a folder without model.safetensors or pytorch_model.bin, whole or in shards")


def inside(folder: Path, name: Any) -> Path:
    """A part of the folder by the name that the folder's index gives. Raises `BenchError` when it leads elsewhere.

    A link may lead to the ``blobs`` of the same repository in Hugging Face's cache
    (``models--x/snapshots/revision/file -> ../../blobs/sum``) and nowhere else.
    """
    if not isinstance(name, str) or not name or "\0" in name or Path(name).name != name or name == "..":
        raise BenchError(f"{folder} names a part {str(name)[:80]!r} that is no file of the folder; download it again")
    try:
        home, found = folder.resolve(), (folder / name).resolve(strict=True)
    except (OSError, RuntimeError):
        raise BenchError(f"{folder} lacks its part {name[:80]!r}: download the folder again") from None
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append(home.parent.parent / "blobs")
    if found.parent not in allowed or not found.is_file():
        raise BenchError(f"{folder / name} leads out of its folder to {found}; put the file itself there")
    return found


def _sharded(folder: Path, index: str, read: Callable[[Path], Container]) -> Container:
    path = inside(folder, index)
    if path.stat().st_size > _LARGEST_INDEX:
        raise BenchError(f"{path} is too large to be an index of shards")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        names = dict.fromkeys(table.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BenchError(f"{folder / index} is no index of shards: download it again") from error
    content: dict[str, Any] = {}
    hazards: list[str] = []
    kinds: dict[str, None] = {}
    for name in names:
        shard = read(inside(folder, name))
        if not isinstance(shard.content, dict):
            raise BenchError(f"{folder / name} holds no names and tensors: download it again")
        content |= shard.content
        kinds[shard.kind] = None
        hazards += [text for text in shard.hazards if text not in hazards]
    missing = [name for name in table if name not in content]
    if missing:
        raise BenchError(
            f"{folder} lacks {len(missing)} tensors of its index, such as {missing[0]!r}: download it again"
        )
    return Container(f"Hugging Face folder, {len(names)} shards, {', '.join(kinds)}", content, hazards)


def _distributed(folder: Path) -> Container:
    """The tensors that the metadata lists, put together from their chunks; other saved objects are left alone."""
    metadata, names = loads(inside(folder, ".metadata").read_bytes())
    state = metadata.state
    hazards = replaced([name for name in names if not name.startswith((f"{_CHECKPOINT}.", "torch.", "pathlib."))])
    lying: dict[str, list[tuple[tuple[int, ...], Any]]] = {}
    for index, place in state["storage_data"].items():
        where = index.state if isinstance(index, Opaque) else {}
        lying.setdefault(where["fqn"], []).append((tuple(where.get("offset") or ()), place))
    content: dict[str, Any] = {}
    for name, entry in state["state_dict_metadata"].items():
        if not isinstance(entry, Opaque) or not entry.name.startswith("TensorStorage"):
            continue
        content[name] = _assembled(folder, tuple(entry.state["size"]), lying.get(name, []), hazards)
    return Container(f"{_CHECKPOINT} folder", _nested(content, state.get("planner_data")), hazards)


def _assembled(
    folder: Path, size: tuple[int, ...], chunks: list[tuple[tuple[int, ...], Any]], hazards: list[str]
) -> Any:
    import torch

    from adapters.torchfile import read_part

    parts: list[tuple[tuple[int, ...], torch.Tensor]] = []
    for offset, place in chunks:
        path = inside(folder, place.state["relative_path"])
        with open(path, "rb") as stream:
            stream.seek(place.state["offset"])
            part, names = read_part(stream.read(min(place.state["length"], path.stat().st_size)))
        hazards += [text for text in replaced(names) if text not in hazards]
        parts.append((offset or (0,) * len(size), part))
    if sum(part.numel() for _, part in parts) != torch.Size(size).numel() or not parts:
        raise BenchError(f"{folder} lacks chunks of a tensor of shape {list(size)}: copy the whole folder")
    if len(parts) == 1:
        return parts[0][1].reshape(size)
    whole = torch.empty(size, dtype=parts[0][1].dtype)
    for offset, part in parts:
        if any(start + extent > bound for start, extent, bound in zip(offset, part.shape, size, strict=True)):
            raise BenchError(f"{folder} has a chunk beyond its tensor of shape {list(size)}: save it again")
        whole[tuple(slice(start, start + extent) for start, extent in zip(offset, part.shape, strict=True))] = part
    return whole


def _nested(tensors: dict[str, Any], ways: Any) -> dict[str, Any]:
    """The dictionaries that were saved, from their flat names; ``ways`` is the way to each name, when it was kept."""
    content: dict[str, Any] = {}
    for name, tensor in tensors.items():
        way = ways.get(name) if isinstance(ways, dict) else None
        *outer, last = way if isinstance(way, tuple) and way and all(isinstance(one, str) for one in way) else (name,)
        here = content
        for part in outer:
            inner = here.setdefault(part, {})
            if not isinstance(inner, dict):
                raise BenchError(
                    f"the checkpoint's name {name[:80]!r} is both a tensor and a dictionary: save it again"
                )
            here = inner
        here[last] = tensor
    return content
