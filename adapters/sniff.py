"""What a file is by its first bytes, whatever its name says."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from bench.errors import BenchError

SAFETENSORS = "safetensors"
TORCH_ZIP = "torch zip"
TORCHSCRIPT = "TorchScript archive"
NUMPY = "NumPy archive"
PICKLE = "torch legacy pickle"
ONNX = "ONNX"

_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z"}
_OTHERS = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"%PDF": "a PDF page"}


def container_of(path: Path) -> str:
    """The kind of a weight file, one of the names above; anything else is refused with what it looks like.

    Raises `BenchError` naming the file and the remedy: empty, cut off, a web page, a pointer of git-lfs, packed...
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from None
    if size == 0:
        raise BenchError(f"{path} is empty: it holds no weights; download or save it again")
    # First, for its length in bytes 0-7 may begin like anything.
    if size >= 10 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size:
        return SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return _archive(path)
    if head.startswith(b"\x80") or head[:1] in (b"(", b"}", b"]"):
        return PICKLE
    raise BenchError(f"{path} is no checkpoint: {_looks_like(head, size)}")


def _archive(path: Path) -> str:
    try:
        if not zipfile.is_zipfile(path):
            raise BenchError(f"{path} is cut off: a zip archive without its end; download or save it again")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except BenchError:
        raise
    except Exception as error:  # zipfile has no common base for what damaged archives provoke
        raise BenchError(f"{path} is a damaged zip archive; download or save it again") from error
    if names and all(name.endswith(".npy") for name in names):
        return NUMPY
    tops = [name.partition("/")[2] for name in names]
    if "constants.pkl" in tops or any(top.startswith("code/") for top in tops):
        return TORCHSCRIPT
    if "data.pkl" in tops:
        return TORCH_ZIP
    if "model.json" in tops:
        raise BenchError(f"{path} is a TorchScript archive of PyTorch before 1.2; save its state_dict again")
    raise BenchError(f"{path} is a zip archive without weights of its own; unpack it and give the weight file inside")


def is_onnx(path: Path) -> bool:
    """Whether a file begins as an ONNX graph does, whatever its name says."""
    try:
        with open(path, "rb") as stream:
            return _onnx(stream.read(512))
    except OSError:
        return False


def _onnx(head: bytes) -> bool:
    # ModelProto: field 1 (ir_version, a small number), then one of the others with its length, in their order.
    return len(head) > 8 and head[0] == 8 and 1 <= head[1] <= 32 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42\x72"


def _looks_like(head: bytes, size: int) -> str:
    text = head.lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of git-lfs; fetch the file itself with `git lfs pull`"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "it is a web page, as a failed download leaves one; download it again"
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            return f"it is packed with {what}; unpack it first"
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            return f"it is {what}"
    if _onnx(head):
        return "it is an ONNX graph, which is a model of its own and no part of another: give it as --model PATH"
    if head[257:262] == b"ustar":
        return "it is a tar archive; unpack it and give the weight file inside"
    if size >= 10 and head[8:9] == b"{":
        return "it begins like safetensors but is cut off; download it again"
    if text.startswith((b"{", b"[")) or all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "it is a text file; give the weight file itself"
    return "its first bytes are those of no weight format that bench knows (torch, safetensors)"
