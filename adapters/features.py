"""``features:DIR``: features that some other framework made, as ``train.npz`` and ``test.npz``.

Each file holds ``x`` float [N, D], ``y`` int [N] and optionally ``logits`` float [N, C] and ``ids`` [N] (text). Where
samples carry several labels ``y`` is int [N, C]: 1 present and 0 absent, or, as in VOC's lists, 1 present, -1 absent
and 0 not judged (difficult), in both files alike.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch

from adapters.options import refuse
from bench.backbone import weight_digest
from bench.card import Card
from bench.errors import BenchError
from bench.featureset import ArrayFeatureSet
from bench.files import at_home, regular
from bench.stored import StoredFeatures, fingerprint

_KNOWN = ("x", "y", "logits", "ids")
_FLOATS = (np.float16, np.float32, np.float64)


class _Split(NamedTuple):
    path: Path
    arrays: dict[str, np.ndarray]
    labels: np.ndarray
    ids: list[str] | None
    others: list[str]


def load(rest: str, *, arch: str | None = None, weights_key: str | None = None, trust: bool = False) -> StoredFeatures:
    """Both splits of the folder ``rest``. Nothing is unpickled. Raises `BenchError` naming file, array and row."""
    refuse("features", arch=arch, weights_key=weights_key)
    if not rest:
        raise BenchError("features needs a path: --model features:/data/from-jax")
    folder = at_home(rest)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise BenchError(f"features: {folder} {what}: give a folder with train.npz and test.npz")
    train, test = (_split(folder, name) for name in ("train", "test"))
    for name in ("pooled", "logits"):
        if (name in train.arrays) != (name in test.arrays):
            having, lacking = (train, test) if name in train.arrays else (test, train)
            raise BenchError(f"features: {having.path} has '{name}' and {lacking.path} has not: give both or none")
        if name in train.arrays and train.arrays[name].shape[1] != test.arrays[name].shape[1]:
            widths = f"{train.arrays[name].shape[1]} and {test.arrays[name].shape[1]}"
            label = "x" if name == "pooled" else name
            raise BenchError(
                f"features: '{label}' has widths {widths} in {train.path} and {test.path}: they must agree"
            )
    if train.labels.ndim == 2 and min(train.labels.min(), test.labels.min()) == 0:
        # No absence is marked by -1: 0 is absent. Inside, 0 is always what was not judged.
        train, test = (split._replace(labels=np.where(split.labels > 0, 1, -1)) for split in (train, test))
    splits = {"train": train, "test": test}
    tensors = {
        f"{name}.{array}": torch.from_numpy(values)
        for name, split in splits.items()
        for array, values in split.arrays.items()
    }
    digest = weight_digest(tensors)
    for split in splits.values():
        for values in split.arrays.values():
            values.setflags(write=False)
    labels = {name: split.labels for name, split in splits.items()}
    if train.labels.shape[1:] != test.labels.shape[1:]:
        shapes = f"{_shape(train.labels)} in {train.path} and {_shape(test.labels)} in {test.path}"
        raise BenchError(f"features: y has shapes {shapes}: both splits need the same classes")
    occurring = [np.unique(y) if y.ndim == 1 else np.arange(y.shape[1]) for y in labels.values()]
    classes = {int(label): str(label) for label in np.unique(np.concatenate(occurring))}
    sets = {
        name: ArrayFeatureSet(
            split.arrays,
            split.labels,
            dataset="features",
            split=name,
            fingerprint=fingerprint(split.labels),
            ids=split.ids,
            classes=classes,
        )
        for name, split in splits.items()
    }
    notes = [f"{split.path.name}: not read: {', '.join(split.others)}" for split in splits.values() if split.others]
    card = Card(
        name=folder.resolve().name,
        spec=f"features:{rest}",
        architecture="features",
        family="features",
        dims=dict(sets["train"].widths),
        feature="x",
        weight_digest=digest,
        container="npz",
        layout=f"train {len(train.labels)} and test {len(test.labels)} samples",
        notes=notes,
    )
    return StoredFeatures(card=card, train=sets["train"], test=sets["test"])


def _split(folder: Path, name: str) -> _Split:
    path = folder / f"{name}.npz"
    if path.exists():
        regular(path)
    else:
        found = sorted(p.name for p in folder.iterdir())[:8]
        raise BenchError(f"features: {path} is missing; the folder holds {', '.join(found) if found else 'nothing'}")
    raw = _read(path)
    for needed in ("x", "y"):
        if needed not in raw:
            held = ", ".join(sorted(raw)) or "nothing"
            raise BenchError(f"features: {path} has no array '{needed}' (it holds {held}): save x [N, D] and y [N]")
    labels = _labels(path, raw["y"])
    arrays = {"pooled": _floats(path, "x", raw["x"], len(labels))}
    if "logits" in raw:
        arrays["logits"] = _floats(path, "logits", raw["logits"], len(labels))
    ids = _ids(path, raw["ids"], len(labels)) if "ids" in raw else None
    return _Split(path, arrays, labels, ids, sorted(set(raw) - set(_KNOWN)))


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz; its unpacked size, declared in the zip's directory, must fit in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        free = psutil.virtual_memory().available
        if unpacked > 0.8 * free:
            raise BenchError(
                f"features: {path} unpacks to {unpacked / 1e9:.1f} GB, more than fits in the {free / 1e9:.1f} GB of "
                f"memory that is free: use a machine with more, or fewer samples"
            )
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] if name in _KNOWN else np.empty(0) for name in file.files}
        if bare := [name for name, values in held.items() if not isinstance(values, np.ndarray)]:
            # numpy hands out what a member without an array's header holds as bytes.
            raise BenchError(f"features: '{bare[0]}' in {path} is no array: save it with numpy.savez")
        return held
    except BenchError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, SyntaxError) as error:
        raise BenchError(f"features: {path} is no readable .npz file ({error}): save it with numpy.savez") from error
    except MemoryError as error:
        raise BenchError(f"features: {path} declares an array that does not fit in memory: is it damaged?") from error
    except ValueError as error:
        if "Object arrays" in str(error):
            raise BenchError(
                f"features: {path} holds an array of Python objects, which is never unpickled: save x as float, y as "
                f"int and ids as text"
            ) from error
        raise BenchError(f"features: {path} is damaged ({error}): save it again with numpy.savez") from error
    except Exception as error:  # zlib.error and what else a damaged member makes the decoders raise
        raise BenchError(f"features: {path} is damaged ({error}): save it again with numpy.savez") from error


def _labels(path: Path, y: np.ndarray) -> np.ndarray:
    if y.ndim not in (1, 2) or y.shape[1:] == (0,):
        raise BenchError(
            f"features: y in {path} has shape {_shape(y)}, not [N]: give one class number per sample (or [N, C] of 0 "
            f"and 1 where samples carry several labels)"
        )
    if y.dtype.kind not in "iu":
        raise BenchError(
            f"features: y in {path} is {y.dtype}, not integer: convert class numbers with y.astype('int64'), names "
            f"with numpy.unique(names, return_inverse=True)[1]"
        )
    if not len(y):
        raise BenchError(f"features: {path} has no samples")
    if y.ndim == 2 and not np.isin(y, (-1, 0, 1)).all():
        raise BenchError(
            f"features: y in {path} has shape {_shape(y)} and values other than -1, 0 and 1: give one class number per "
            f"sample as [N], or for each class 1 (present) or 0 (absent), or 1, -1 (absent) and 0 (not judged)"
        )
    if y.ndim == 2 and (y.sum(axis=1) == 1).all() and y.min() == 0:
        raise BenchError(
            f"features: y in {path} has shape {_shape(y)} and a single 1 in every row: give one class number per "
            f"sample, y.argmax(axis=1)"
        )
    if y.dtype == np.uint64 and y.max() > np.iinfo(np.int64).max:
        raise BenchError(f"features: y in {path} has a label beyond 63 bits")
    return y.astype(np.int64)


def _floats(path: Path, name: str, values: np.ndarray, samples: int) -> np.ndarray:
    if values.ndim != 2 or values.shape[1] == 0:
        hint = "; flatten or pool it first" if values.ndim > 2 else ""
        raise BenchError(f"features: {name} in {path} has shape {_shape(values)}, not [N, D]{hint}")
    if values.dtype.type not in _FLOATS:
        raise BenchError(f"features: {name} in {path} is {values.dtype}, not float: convert it with astype('float32')")
    if len(values) != samples:
        raise BenchError(f"features: {path} has {len(values)} rows of {name} but {samples} labels in y: one each")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(values, dtype=np.float32)
    bad = ~np.isfinite(array).all(axis=1)
    if bad.any():
        count, first = int(bad.sum()), int(bad.argmax())
        what = "values beyond float32" if np.isfinite(values[bad]).all() else "NaN or infinite values"
        raise BenchError(
            f"features: {name} in {path} has {what} in {count} of {samples} samples, the first is "
            f"sample {first}: mend or leave out those samples"
        )
    return array


def _ids(path: Path, ids: np.ndarray, samples: int) -> list[str]:
    if ids.shape != (samples,):
        raise BenchError(f"features: ids in {path} has shape {_shape(ids)} for {samples} samples: one each")
    named = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in ids.tolist()]
    if len(set(named)) != samples:
        raise BenchError(f"features: ids in {path} are not unique: each sample needs its own")
    return named


def _shape(array: np.ndarray) -> str:
    return "[" + ", ".join(map(str, array.shape)) + "]"
