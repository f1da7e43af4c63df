"""PyTorch's own files, read as data: the zip archive, the older row of pickles, and TorchScript's archive."""

from __future__ import annotations

import io
import mmap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from adapters.unpickling import Opaque, Refused, Unpickler, loads
from adapters.ziprecord import record

if TYPE_CHECKING:
    from torch import Tensor

_MAGIC = 0x1950A86A20F9469CFC6C


def flat(data: bytearray) -> Tensor:
    """A storage's bytes as a one-dimensional uint8 tensor over the same memory."""
    import torch

    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def read_zip(stream: Path | BinaryIO) -> tuple[str, Any, list[str]]:
    """Kind, content and the replaced names of ``torch.save``'s zip or ``torch.jit.save``'s archive."""
    with zipfile.ZipFile(stream) as archive:
        names = archive.namelist()
        table = next((name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")), None)
        if table is None:
            raise Refused("it is a zip archive without PyTorch's data.pkl; unpack it and give the weight file inside")
        root = table.removesuffix("data.pkl")
        if f"{root}byteorder" in names and bytes(record(archive, f"{root}byteorder")).strip() == b"big":
            raise Refused("it was written on a big-endian machine; save it again on a little-endian one")
        held: dict[str, Tensor] = {}

        def storage(pid: tuple[Any, ...]) -> Tensor:
            dtype, key, count = _storage_of(pid)
            if key not in held:
                held[key] = flat(record(archive, f"{root}data/{key}"))
            return _as(held[key], dtype, count)

        content, replaced = loads(bytes(record(archive, table)), storage)
        if f"{root}constants.pkl" in names or any(name.startswith(f"{root}code/") for name in names):
            return "TorchScript archive", _named(content), [name for name in replaced if not _script(name)]
    return "torch zip", content, replaced


def _script(name: str) -> bool:
    return name.startswith("__torch__")


def _storage_of(pid: tuple[Any, ...]) -> tuple[Any, str, int]:
    import torch

    dtype, key, count = pid[1], pid[2], pid[4]
    if isinstance(dtype, Opaque) and dtype.name.startswith("Q"):
        raise Refused(f"its tensors are quantised ({dtype.name[:40]}), give the weights before that")
    if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or type(count) is not int or count < 0:
        raise Refused("a tensor storage of it is described wrongly")
    return dtype, key, count


def _as(storage: Tensor, dtype: Any, count: int) -> Tensor:
    found = storage[: len(storage) // dtype.itemsize * dtype.itemsize].view(dtype)
    if count > len(found):
        raise EOFError(f"a storage declares {count:,} elements and holds {len(found):,}")
    return found


def _named(module: Any) -> dict[str, Any]:
    """The tensors of a TorchScript module by their dotted names; its code stays text that nobody reads."""
    import torch

    found: dict[str, Any] = {}
    seen: set[int] = set()
    waiting = [("", module)]
    while waiting:
        prefix, here = waiting.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        state = here.state if isinstance(here, Opaque) else here
        if not isinstance(state, dict):
            continue
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Opaque) and len(prefix) < 2000:
                waiting.append((f"{prefix}{name}.", value))
    return found


def is_plain_pickle(path: Path) -> bool:
    """Whether a pickle is not one of torch.save, whose files begin with a number of its own."""
    with open(path, "rb") as stream:
        head = stream.read(64)
    return head.startswith(b"\x80") and _MAGIC.to_bytes(10, "little") not in head


def read_legacy(path: Path) -> tuple[str, Any, list[str]]:
    """Kind, content and replaced names of a file of PyTorch 1.5 or before: pickles in a row, then the storages.

    A file that is one pickled dictionary of NumPy arrays, as detectron2's model zoo has them, is read too.
    """
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as source:
        size = len(source)
        read: Callable[..., Unpickler] = lambda storage=None: Unpickler(source, storage, size)  # noqa: E731
        first = read()
        begin = first.load()
        if isinstance(begin, dict):
            from adapters.arrays import tensors_of

            return "pickled NumPy arrays", tensors_of(begin), list(first.replaced)
        if begin != _MAGIC:
            raise Refused("it is a pickle, but neither one that torch.save wrote nor a dictionary of arrays")
        version, system = read().load(), read().load()
        if version != 1001 or not isinstance(system, dict) or not system.get("little_endian", True):
            raise Refused("it is a torch file of an unknown version or byte order")
        held: dict[str, tuple[Any, bytearray]] = {}
        declared = 0

        def storage(pid: tuple[Any, ...]) -> Tensor:
            nonlocal declared
            dtype, key, count = _storage_of(pid)
            if key not in held:
                declared += count * dtype.itemsize
                if declared > size:
                    raise EOFError(f"its storages declare {declared:,} bytes, more than the file's {size:,}")
                held[key] = dtype, bytearray(count * dtype.itemsize)
            found = _as(flat(held[key][1]), dtype, count)
            view = pid[5] if len(pid) > 5 else None
            if view is None:
                return found
            if not isinstance(view, tuple) or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
                raise Refused("a tensor storage of it is described wrongly")
            return found[view[1] : view[1] + view[2]]

        reader = read(storage)
        content = reader.load()
        for key in read().load():
            if key not in held:
                raise Refused("it lists a storage that no tensor uses")
            dtype, data = held[key]
            count = int.from_bytes(source.read(8), "little")
            if count * dtype.itemsize != len(data) or source.tell() + len(data) > size:
                raise EOFError("the file ends before its tensors do")
            # By the file, not by the map, whose pages would count as memory too.
            stream.seek(source.tell())
            if stream.readinto(data) != len(data):
                raise EOFError("the file ends before its tensors do")
            source.seek(len(data), 1)
            held.pop(key)
        if held:
            raise EOFError("the file ends before its tensors do")
    return "torch legacy pickle", content, list(reader.replaced)


def read_part(data: bytes) -> tuple[Any, list[str]]:
    """One ``torch.save`` inside a larger file, as torch.distributed.checkpoint keeps them."""
    _, content, replaced = read_zip(io.BytesIO(data))
    return content, replaced
