"""Reading weights without executing anything from the file that holds them, whatever the container."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from adapters import sniff
from adapters.container import Container, printable, replaced
from adapters.extent import check
from bench.errors import BenchError


def read(path: Path, *, trust: bool = False) -> Container:
    """The content of a weight file or folder.

    Classes that a pickle asks for are replaced by inert `adapters.unpickling.Opaque` and named in ``hazards``; with
    ``trust`` Python's own pickle runs what the file says. Raises `BenchError` when it holds no weights or is damaged.
    """
    if path.is_dir():
        from adapters import folders

        return folders.read_folder(path, lambda part: read(part, trust=trust))
    kind = sniff.container_of(path)
    try:
        found = _READERS[kind](path, trust)
        check(found.content)
    except BenchError:
        raise
    except Exception as error:
        # Whatever a damaged file provokes inside a reader, the user's remedy is the same.
        raise BenchError(f"{path} is damaged or no checkpoint ({_first(error)}): save or download it again") from error
    return found


def _safetensors(path: Path, trust: bool) -> Container:
    from safetensors.torch import load_file

    return Container(sniff.SAFETENSORS, load_file(path))


def _zip(path: Path, trust: bool) -> Container:
    from adapters.torchfile import read_zip

    if trust:
        return _trusted(path, sniff.TORCH_ZIP)
    kind, content, names = read_zip(path)
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        kind = f"Lightning checkpoint, {kind}"
    return Container(kind, content, replaced(names))


def _script(path: Path, trust: bool) -> Container:
    from adapters.torchfile import read_zip

    kind, content, names = read_zip(path)
    return Container(kind, content, ["TorchScript code in the archive: not compiled, not executed", *replaced(names)])


def _legacy(path: Path, trust: bool) -> Container:
    from adapters.torchfile import read_legacy

    if trust:
        return _trusted(path, sniff.PICKLE)
    kind, content, names = read_legacy(path)
    return Container(kind, content, replaced(names))


def _numpy(path: Path, trust: bool) -> Container:
    from adapters.arrays import read_npz

    return Container(sniff.NUMPY, read_npz(path))


def _trusted(path: Path, kind: str) -> Container:
    import torch

    from adapters.torchfile import is_plain_pickle

    if is_plain_pickle(path):
        import pickle

        from adapters.arrays import tensors_of

        with open(path, "rb") as stream:
            content = pickle.load(stream)
        content, kind = tensors_of(content) if isinstance(content, dict) else content, "pickle"
    else:
        content = torch.load(path, map_location="cpu", weights_only=False)
    return Container(kind, content, ["--trust-checkpoint: Python's pickle executed what the file says"])


_READERS: dict[str, Callable[[Path, bool], Container]] = {
    sniff.SAFETENSORS: _safetensors,
    sniff.TORCH_ZIP: _zip,
    sniff.TORCHSCRIPT: _script,
    sniff.PICKLE: _legacy,
    sniff.NUMPY: _numpy,
}


def _first(error: Exception) -> str:
    return printable(str(error).partition("\n")[0].partition(". ")[0][:160]) or type(error).__name__
