"""NumPy's arrays as weights: ``.npz`` archives, as JAX models are published, and pickled dictionaries of arrays."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.extent import check
from adapters.unpickling import Refused
from adapters.ziprecord import record

if TYPE_CHECKING:
    from torch import Tensor


def read_npz(path: Path) -> dict[str, Tensor]:
    """Tensors by their names in the archive. Raises `UnpicklingError` for arrays of objects, which would be pickles."""
    import numpy as np

    found: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            data = record(archive, entry)
            stream = io.BytesIO(data)
            version = np.lib.format.read_magic(stream)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(stream)
            if dtype.hasobject:
                raise Refused(f"its array {entry[:80]!r} holds pickled objects")
            if dtype.kind not in "biufc":
                continue
            if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
                raise Refused(f"its array {entry[:80]!r} declares a shape that is not that of its bytes")
            array = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")
            found[entry.removesuffix(".npy")] = _tensor(array)
    return found


def _tensor(array: Any) -> Tensor:
    import numpy as np
    import torch

    # A copy where it must be: torch wants native byte order, rows in order, and memory that may be written.
    native = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
    try:
        return torch.from_numpy(native).reshape(array.shape)
    except TypeError:
        raise Refused(f"it holds an array of {array.dtype}, a type that no network computes with") from None


def tensors_of(content: dict[Any, Any]) -> dict[Any, Any]:
    """``content`` with a tensor for every array of numbers in its nested dictionaries; all else stays as it is.

    Raises `BenchError` where it nests deeper or unfolds further than `adapters.extent` allows.
    """
    import numpy as np

    check(content)
    done: dict[int, Any] = {}

    def turn(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            return _tensor(value)
        if not isinstance(value, dict):
            return value
        if id(value) not in done:
            done[id(value)] = {name: turn(inner) for name, inner in value.items()}
        return done[id(value)]

    return {name: turn(value) for name, value in content.items()}
