"""NumPy's ``.npz`` archives of plain arrays, as JAX models are published."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.torchfile import record
from adapters.unpickling import Refused

if TYPE_CHECKING:
    from torch import Tensor


def read_npz(path: Path) -> dict[str, Tensor]:
    """Tensors by their names in the archive. Raises `UnpicklingError` for arrays of objects, which would be pickles."""
    import numpy as np
    import torch

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
            found[entry.removesuffix(".npy")] = torch.from_numpy(
                np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(shape)
            )
    return found
