"""Reading a weight file without executing anything from it: safetensors, and torch files of plain data."""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.sniff import SAFETENSORS, container_of
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
    kind = container_of(path)
    if kind == SAFETENSORS:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return Container(kind, load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise BenchError(f"{path} is a damaged safetensors file ({_first(error)}): download it again") from error
    hazards = ["--trust-checkpoint: Python's pickle executed what the file says"] if trust else []
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"GLOBAL ([\w.]+)", str(error))
        if unsafe is not None and not trust:
            raise BenchError(
                f"{path} holds more than weights: its pickle asks for {unsafe[1]}, which is not executed; save the "
                f"state_dict alone, or, if you made the file yourself, add --trust-checkpoint"
            ) from error
        raise BenchError(f"{path} is no checkpoint, or a damaged one: save or download it again") from error
    except Exception as error:
        # Whatever a damaged file provokes inside the reader, the user's remedy is the same.
        raise BenchError(f"{path} is damaged ({_first(error)}): save or download it again") from error
    return Container(kind, content, hazards)


def _first(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0][:160] or type(error).__name__
