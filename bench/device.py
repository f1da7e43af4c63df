"""The device of a run, the precision of a forward pass, and what running out of memory looks like."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, get_args

import torch

from bench.errors import BenchError

Precision = Literal["fp32", "bf16", "fp16"]

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose(spec: str | torch.device = "auto") -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` names; a device that is not here is refused.

    ``auto`` is the first GPU where there is one, else the CPU.
    """
    spec = str(spec)  # a torch.device says the same
    if spec == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if spec == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d+))?", spec)
    if match is None:
        raise BenchError(f"unknown device '{spec}': use auto, cpu, cuda or cuda:0")
    if not torch.cuda.is_available():
        raise BenchError(f"device '{spec}' asks for a GPU, and torch finds none here: use --device cpu")
    index, count = int(match[1] or 0), torch.cuda.device_count()
    if index >= count:
        there = "there is one GPU, cuda:0" if count == 1 else f"there are {count} GPUs, cuda:0 to cuda:{count - 1}"
        raise BenchError(f"device '{spec}' is not here: {there}")
    return torch.device("cuda", index)


def precision_of(spec: str = "auto", protocol: Precision = "fp32") -> Precision:
    """The precision of a run: ``auto`` is the protocol's own (float32 for probes), another is a named variant."""
    if spec == "auto":
        return protocol
    if spec not in get_args(Precision):
        raise BenchError(f"unknown precision '{spec}': use auto, fp32, bf16 or fp16")
    return spec  # type: ignore[return-value]


@contextmanager
def float32_products() -> Iterator[None]:
    """float32 is float32 throughout: TensorFloat-32, its like and an outer autocast off; all put back afterwards.

    A training loop may have set them, and its numbers would be taken for ours.
    """
    with ExitStack() as stack:
        stack.callback(_without_shortcuts())
        for kind in ("cpu", "cuda"):
            # Only where there is one to switch off: autocast keeps its copies of weights until the outermost one ends,
            # and a training inside would go on with those of its first step. Inside another's, it keeps none.
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False, cache_enabled=False))
        yield


def _without_shortcuts() -> Callable[[], None]:
    """Set PyTorch's switches to full precision; what is returned puts them back."""
    every: Any = torch.backends
    cudnn = every.cudnn
    try:
        matmul, convolution = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:
        # The process has used the newer switches, one per backend, which the older ones cannot read.
        backends: tuple[Any, ...] = (every.cuda.matmul, every.mkldnn.matmul, cudnn.conv, cudnn.rnn)
        before = [backend.fp32_precision for backend in backends]
        for backend in backends:
            backend.fp32_precision = "ieee"

        def restore_each() -> None:
            for backend, precision in zip(backends, before, strict=True):
                backend.fp32_precision = precision

        return restore_each
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False

    def restore() -> None:
        torch.set_float32_matmul_precision(matmul)
        cudnn.allow_tf32 = convolution

    return restore


@contextmanager
def forward_mode(device: torch.device, precision: Precision) -> Iterator[None]:
    """Everything a forward pass of record runs under; the process's own switches are put back afterwards.

    No autograd; ``fp32`` is float32 throughout (TensorFloat-32 and its like off, whatever a training loop has set);
    ``bf16`` and ``fp16`` are autocast; kernels are the deterministic ones and are not chosen by timing, so the same
    batch gives the same bits again on the same machine.
    """
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    cudnn.deterministic, cudnn.benchmark = True, False
    dtype = _DTYPES.get(precision)
    try:
        with (
            torch.inference_mode(),
            float32_products(),
            # An outer autocast (a training loop's) must not leak into float32 features.
            torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, on the GPU or in the host, so that a smaller batch may help."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def synchronize(device: torch.device) -> None:
    """Wait for the device's queued work, so that a clock read next is honest."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
