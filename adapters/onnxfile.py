"""What an ONNX file holds, read from its protobuf fields alone: no weight is loaded and nothing is run.

onnxruntime would open whatever path a tensor names as its external data. So every tensor of the graph, of its subgraphs
and of its functions is looked at before onnxruntime sees the file. Field numbers are those of ``onnx.proto``.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError
from bench.files import regular

DEPTH = 64
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FLOATS = frozenset((1, 10, 11, 16))
"""float, float16, double, bfloat16."""
_STANDARD = frozenset(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"))
"""Domains of operators that onnxruntime brings."""


@dataclass
class OnnxFile:
    """The facts of a file. ``outside``: the files of external data, by the name that the graph gives them."""

    path: Path
    producer: str = ""
    opset: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    parameters: int = 0
    """Numbers in the floating-point tensors of the graph: weights, and running statistics where there are any."""
    outside: dict[str, Path] = field(default_factory=dict)
    domains: set[str] = field(default_factory=set)
    """Domains of operators that onnxruntime alone does not have and the file does not define."""

    def digest(self) -> str:
        """``sha256:...`` of the file's bytes and, by name, of those of its external data."""
        total = hashlib.sha256(_sum(self.path))
        for name in sorted(self.outside):
            total.update(name.encode() + b"\0" + _sum(self.outside[name]))
        return f"sha256:{total.hexdigest()}"


def read_onnx(path: Path) -> OnnxFile:
    """The facts of the ONNX file ``path``.

    Raises `BenchError` when it is cut off or damaged, and when a tensor's data lie outside of its folder.
    """
    found = OnnxFile(path)
    size = regular(path).st_size
    with open(path, "rb") as stream:
        # Closed with its last view: a refusal's traceback may hold some of them.
        content = mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ)
    try:
        _model(memoryview(content), found)
    except (_Damaged, UnicodeDecodeError) as error:
        raise BenchError(f"{path} is a damaged ONNX file ({error}): export or download it again") from None
    return found


class _Damaged(Exception):
    """The bytes are no message of protobuf."""


def _sum(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """(number, wire type, value) of every field: an integer, or the bytes of one with a length."""
    at, end = 0, len(message)

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= end or shift > 63:
                raise _Damaged("a number without its end")
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < end:
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            yield number, kind, varint()
            continue
        if kind not in (_EIGHT, _BYTES, _FOUR) or number == 0:
            raise _Damaged(f"a field of wire type {kind}")
        length = varint() if kind == _BYTES else 8 if kind == _EIGHT else 4
        if length > end - at:
            raise _Damaged(f"a field of {length:,} bytes, of which {end - at:,} are there")
        yield number, kind, message[at : at + length]
        at += length


def _inner(message: memoryview, number: int) -> Iterator[memoryview]:
    """The values of the fields ``number`` that have a length."""
    for found, _, value in _fields(message):
        if found == number and isinstance(value, memoryview):
            yield value


def _text(value: int | memoryview) -> str:
    if not isinstance(value, memoryview):
        raise _Damaged("a number in the place of a text")
    return bytes(value).decode()


def _pair(message: memoryview) -> tuple[str, str]:
    """Key (1) and value (2) of a StringStringEntryProto."""
    found = {number: _text(value) for number, kind, value in _fields(message) if kind == _BYTES and number < 3}
    return found.get(1, ""), found.get(2, "")


def _model(model: memoryview, found: OnnxFile) -> None:
    graphs, own = 0, set()
    for number, kind, value in _fields(model):
        if kind != _BYTES or not isinstance(value, memoryview):
            continue
        if number == 2:
            found.producer = f"{_text(value)[:80]} {found.producer}".strip()
        elif number == 3:
            found.producer = f"{found.producer} {_text(value)[:40]}".strip()
        elif number == 7:
            graphs += 1
            _graph(value, found, 0)
        elif number == 8:
            domain, version = "", 0
            for inner, _, what in _fields(value):
                if inner == 1:
                    domain = _text(what)
                elif inner == 2 and isinstance(what, int):
                    version = what
            if domain in ("", "ai.onnx"):
                found.opset = version
        elif number == 14:
            key, text = _pair(value)
            found.metadata[key] = text
        elif number == 25:  # a function that the file defines: (domain 10), nodes (7)
            own |= {_text(what) for inner, _, what in _fields(value) if inner == 10}
            for node in _inner(value, 7):
                _node(node, found, 1)
    if graphs != 1:
        raise _Damaged("no graph" if not graphs else "several graphs")
    found.domains -= _STANDARD | own


def _graph(graph: memoryview, found: OnnxFile, depth: int) -> None:
    if depth > DEPTH:
        raise _Damaged(f"graphs nested over {DEPTH} deep")
    for number, kind, value in _fields(graph):
        if kind != _BYTES or not isinstance(value, memoryview):
            continue
        if number == 1:
            _node(value, found, depth)
        elif number == 5:
            found.parameters += _tensor(value, found)
        elif number == 15:
            found.parameters += _sparse(value, found)


def _node(node: memoryview, found: OnnxFile, depth: int) -> None:
    domain = ""
    for number, kind, value in _fields(node):
        if kind != _BYTES or not isinstance(value, memoryview):
            continue
        if number == 7:
            domain = _text(value)
        elif number == 5:
            # An attribute: t (5), g (6), tensors (10), graphs (11), sparse_tensor (22), sparse_tensors (23).
            for inner, inner_kind, what in _fields(value):
                if inner_kind != _BYTES or not isinstance(what, memoryview):
                    continue
                if inner in (5, 10):
                    found.parameters += _tensor(what, found)
                elif inner in (6, 11):
                    _graph(what, found, depth + 1)
                elif inner in (22, 23):
                    found.parameters += _sparse(what, found)
    found.domains.add(domain)


def _sparse(tensor: memoryview, found: OnnxFile) -> int:
    # values (1) and indices (2) are tensors.
    counts = [_tensor(value, found) for number in (1, 2) for value in _inner(tensor, number)]
    return counts[0] if counts else 0


def _tensor(tensor: memoryview, found: OnnxFile) -> int:
    """The number of elements, 0 where they are no floating-point numbers; its external data are noted."""
    count, kind = 1, 0
    for number, wire, value in _fields(tensor):
        if number == 1:
            for length in _lengths(value):
                count *= length
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 13 and wire == _BYTES and isinstance(value, memoryview):
            key, text = _pair(value)
            if key == "location" and text not in found.outside:
                found.outside[text] = _inside(found.path, text)
    return count if kind in _FLOATS else 0


def _lengths(value: int | memoryview) -> list[int]:
    """One length, or several in one field (packed)."""
    if isinstance(value, int):
        return [value]
    lengths, current, shift = [], 0, 0
    for byte in value:
        current |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            lengths.append(current)
            current = shift = 0
    return lengths


def _inside(path: Path, location: str) -> Path:
    """The file of external data that ``location`` names. Raises `BenchError` when it leads out of the folder.

    A link may lead to the ``blobs`` of the same repository in Hugging Face's cache, and nowhere else.
    """
    shown = f"{location[:80]!a}"
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts or "\\" in location:
        raise BenchError(f"{path} keeps weights at {shown}, outside of its folder: that is not read; export it again")
    home = path.parent.resolve()
    try:
        found = (path.parent / relative).resolve(strict=True)
    except (OSError, RuntimeError):
        raise BenchError(
            f"{path} keeps weights in a file {shown} beside it, which is not there: copy that file too"
        ) from None
    allowed = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    if not any(found.is_relative_to(place) for place in allowed):
        raise BenchError(f"{path} keeps weights at {shown}, a link that leads out of its folder: put the file there")
    regular(found)
    return found
