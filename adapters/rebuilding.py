"""What stands for PyTorch's and NumPy's own rebuild functions in a pickle: the same results, every extent checked."""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# An expanded tensor (stride 0) may be larger than its storage, as position indices are, but not without bound.
_EXPANDED = 1 << 22
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}


def dtype_of(module: str, name: str) -> Any:
    """The `torch.dtype` of a name such as ``torch.float32`` or of a storage class, or None."""
    import torch

    if module in ("torch", "torch.cuda", "torch.storage"):
        found = getattr(torch, _STORAGES.get(name, name), None) if name.isidentifier() else None
        return found if isinstance(found, torch.dtype) else None
    return None


def tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a flat storage. Raises `UnpicklingError` where it would reach beyond the storage."""
    import torch

    if not isinstance(storage, torch.Tensor) or not _extents([offset]) or not _extents(size) or not _extents(stride):
        raise pickle.UnpicklingError("a tensor of it is described wrongly")
    if len(size) != len(stride) or len(size) > 16:
        raise pickle.UnpicklingError("a tensor of it has a shape and strides that differ in length")
    count = math.prod(size)
    last = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    if count and last >= len(storage):
        raise pickle.UnpicklingError(f"a tensor of it declares shape {_short(size)}, more than its stored bytes hold")
    if count > max(len(storage), _EXPANDED) or offset > len(storage) or max((*size, *stride, 0)) >= 1 << 62:
        raise pickle.UnpicklingError(f"a tensor of it declares shape {_short(size)}, more than its stored bytes hold")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _untyped(storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any) -> Tensor:
    """A tensor of a type without a storage class (float8, unsigned), whose storage is bytes."""
    import torch

    if not isinstance(storage, torch.Tensor) or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor of it is described wrongly")
    return tensor(storage.view(dtype), offset, size, stride)


def _short(size: Any) -> str:
    return str([extent if extent < 1 << 64 else "..." for extent in size])[:80]


def _extents(values: Any) -> bool:
    return isinstance(values, (list, tuple)) and all(type(one) is int and one >= 0 for one in values)


def _first(value: Any, *_: Any) -> Any:
    return value


def _from_array(array: Any, dtype: Any = None, *_: Any) -> Tensor:
    import numpy as np
    import torch

    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a tensor of it is described wrongly")
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).to(dtype)


def _from_type(function: Any, _kind: Any, arguments: Any, _state: Any) -> Any:
    if function not in (tensor, _untyped, _first) or not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("a tensor subclass of it is rebuilt by unknown code")
    return function(*(one.call if hasattr(one, "call") else one for one in arguments))


def _size(values: Any = ()) -> tuple[Any, ...]:
    if not _extents(values):
        raise pickle.UnpicklingError("a shape of it is no list of sizes")
    return tuple(values)


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    found: OrderedDict[Any, Any] = OrderedDict()
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
        if not isinstance(key, (str, int)):
            raise pickle.UnpicklingError("a dictionary of it has keys that are no names")
        found[key] = value
    return found


def _set(values: Any = ()) -> set[Any]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(one, (str, int, float)) for one in values):
        raise pickle.UnpicklingError("a set of it holds more than plain values")
    return set(values)


def _encode(text: Any, codec: Any = "latin1") -> bytes:
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it encodes something that is no text")
    return text.encode("latin1")


def _bytes(*values: Any) -> bytes:
    if values:
        raise pickle.UnpicklingError("it builds bytes from something else")
    return b""


def _text(value: Any = "", *_: Any) -> str:
    return str(value) if isinstance(value, (str, int)) else type(value).__name__


class _DType:
    """A NumPy dtype in the making: its byte order comes as state."""

    def __init__(self, code: Any, *_: Any) -> None:
        import numpy as np

        if not isinstance(code, str) or len(code) > 8 or np.dtype(code).kind not in "biufcUSV" or "," in code:
            raise pickle.UnpicklingError("an array of it holds objects")
        self.dtype = np.dtype(code)

    def rebuild(self, state: Any) -> _DType:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])
        return self


class _Array:
    """A NumPy array in the making: shape, dtype and bytes come as state."""

    def __init__(self, *_: Any) -> None:
        pass

    def rebuild(self, state: Any) -> Any:
        import numpy as np

        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _DType):
            raise pickle.UnpicklingError("an array of it is described wrongly")
        _, shape, kind, fortran, data = state
        if isinstance(data, str):
            data = data.encode("latin1")
        if not isinstance(data, bytes) or not _extents(shape) or len(shape) > 16:
            raise pickle.UnpicklingError("an array of it holds objects")
        if not kind.dtype.itemsize or math.prod(shape) * kind.dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f"an array of it declares shape {_short(shape)}, not that of its bytes")
        return np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _buffered(data: Any, kind: Any, shape: Any, order: Any = "C", *_: Any) -> Any:
    """An array as pickle's protocol 5 writes it: bytes first, without a state of its own."""
    if not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array of it is described wrongly")
    return _Array().rebuild((1, shape, kind, order == "F", bytes(data)))


def _scalar(kind: Any, data: Any = b"") -> Any:
    import numpy as np

    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(kind, _DType) or not isinstance(data, bytes) or not 0 < kind.dtype.itemsize == len(data):
        raise pickle.UnpicklingError("a NumPy number of it is described wrongly")
    return np.frombuffer(data, kind.dtype)[0]


def _list(values: Any = ()) -> list[Any]:
    if not isinstance(values, (list, tuple)):
        raise pickle.UnpicklingError("a list of it is built from something else")
    return list(values)


def _mapping(*_: Any) -> dict[Any, Any]:
    return {}


KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _untyped,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    # A TPU's tensor is an array, any other foreign device's a tensor of the CPU.
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _from_array,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch.nn.parameter", "Parameter"): _first,
    ("torch", "Tensor"): _first,
    ("torch.serialization", "_get_layout"): _text,
    ("torch", "device"): _text,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _mapping,
    ("collections", "Counter"): _ordered,
    ("_codecs", "encode"): _encode,
    **{(module, "bytes"): _bytes for module in ("builtins", "__builtin__")},
    **{(module, "set"): _set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): _set for module in ("builtins", "__builtin__")},
    **{(module, "dict"): _mapping for module in ("builtins", "__builtin__")},
    **{(module, "list"): _list for module in ("builtins", "__builtin__")},
    **{("torch.jit._pickle", f"build_{kind}list"): _list for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _first,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _buffered for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}
