"""Reading a weight file without executing anything from it: safetensors, and torch files of plain data."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError


@dataclass(frozen=True)
class Container:
    """What a file holds. ``content``: nested dictionaries and lists of tensors and plain values."""

    kind: str
    content: Any
    hazards: list[str] = field(default_factory=list)


def read(path: Path, *, trust: bool = False) -> Container:
    """The content of a file. Raises `BenchError` when it is no weight file or holds more than plain data."""
    import torch

    if path.is_dir():
        for name in ("model.safetensors", "pytorch_model.bin"):
            if (path / name).is_file():
                inner = read(path / name, trust=trust)
                return Container(f"Hugging Face folder, {inner.kind}", inner.content, inner.hazards)
        raise BenchError(f"{path} is a folder without model.safetensors or pytorch_model.bin")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return Container("safetensors", load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise BenchError(f"{path} is no readable safetensors file: {error}") from error
    kind = "torch zip" if zipfile.is_zipfile(path) else "torch legacy pickle"
    hazards = ["--trust-checkpoint: Python's pickle executed what the file says"] if trust else []
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise BenchError(f"{path} is no checkpoint that can be read safely: {reason}") from error
    return Container(kind, content, hazards)
