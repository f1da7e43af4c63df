"""``hf:PATH-or-NAME``: Parquet or Arrow files, a saved set, or a set in the local Hugging Face cache; no network."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.cache import cache_root
from bench.data.choices import with_choices
from bench.data.decoding import decode
from bench.data.digests import sample_digests
from bench.data.hffiles import by_split, cached_snapshot, folder_of
from bench.data.holdout import HOLDOUT, held_out
from bench.data.imagefolder import TEST
from bench.data.labelled import Labelled, fingerprint_from, numbered
from bench.dataset import DecodeError, Splits
from bench.errors import BenchError
from bench.files import at_home, regular
from bench.registry import nearest

if TYPE_CHECKING:
    from PIL import Image

CHOICES = ("image", "label", "train", "test", "config")
_IMAGES = ("image", "img")
_LABELS = ("label", "labels", "class", "target", "category", "fine_label")


def open_hf(rest: str) -> Splits:
    """A set of the ``datasets`` library, from local files alone.

    ``rest`` is a folder of Parquet or Arrow files (splits by their names, as the library finds them), one such file,
    a folder written by ``save_to_disk``, or ``ORG/NAME`` of a set that the library has cached before. Parquet files are
    converted once to Arrow under ``<cache>/hf`` (about their own size).
    The image column is the one of type Image (or of a struct with bytes, or the binary one); the label column the one
    of type ClassLabel, else the only column of numbers or names with a usual name (label, labels, class, target,
    category, fine_label), else the only such column. Where that leaves a choice, or another is wanted, it is
    ``hf:NAME?image=COLUMN&label=COLUMN&train=SPLIT&test=SPLIT&config=CONFIG`` (in quotes). The split to learn from is
    ``train``; reported on is ``validation``, else ``test``; without one, a fifth is held out by digest of the image, as
    split ``holdout``.
    Raises `BenchError` for data that are not there, files that are damaged, columns that leave a choice, and missing
    labels.
    """
    path, choices = with_choices("hf", rest, CHOICES)
    if not path:
        raise BenchError(
            "hf needs a path or a name: --data hf:/data/parquet, or hf:ORG/NAME of a set in the local cache"
        )
    with _offline():
        splits = _load(path, choices.get("config"))
        train, test = _chosen(path, splits, choices)
        image = _column(path, "image", splits[train].features, choices, _image_columns(splits[train].features))
        label = _column(path, "label", splits[train].features, choices, _label_columns(splits[train].features, image))
        names = [split for split in (train, test) if split]
        columns = [_values(path, split, splits[split], label) for split in names]
        tables = {split: _images_alone(path, split, splits[split], image) for split in names}
    feature = splits[train].features[label]
    classes, class_ids, labels = _labels(path, label, columns, getattr(feature, "names", None))
    title = Path(path).name or "hf"
    parts = [
        HfDataset(title, split, table, image, own, classes, class_ids)
        for (split, table), own in zip(tables.items(), labels, strict=True)
    ]
    if len(parts) == 2:
        return Splits(parts[0], parts[1])
    held = np.array([held_out(digest) for digest in parts[0].digests()])
    return Splits(parts[0].part("train", np.flatnonzero(~held)), parts[0].part(HOLDOUT, np.flatnonzero(held)))


class HfDataset(Labelled):
    """Rows of a table that the ``datasets`` library maps into memory; pickled as the paths of its files."""

    def __init__(
        self,
        name: str,
        split: str,
        table: Any,
        column: str,
        labels: np.ndarray,
        classes: Sequence[str],
        class_ids: Sequence[int],
    ) -> None:
        super().__init__(name, split, labels, classes, class_ids)
        self._table = table
        self._column = column
        self._rows = np.arange(len(labels))
        self._origin = split

    @cached_property
    def ids(self) -> Sequence[str]:
        """``split/row``, by the split that the files have."""
        return [f"{self._origin}/{row}" for row in self._rows]

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint_from(self.digests(), self.labels)

    def digests(self) -> Iterator[bytes]:
        """sha256 of every image as stored."""
        files = sorted({file["filename"] for file in self._table.cache_files})
        if not files:
            return self._read()
        files += self._outside()
        chosen = hashlib.sha256(self._rows.astype("<i8").tobytes()).hexdigest()
        key = f"{self._column}:{self._origin}:{chosen}"
        return sample_digests(Path("/"), files, len(self), self._read, key)

    def _outside(self) -> list[str]:
        """The image files that rows name instead of holding an image: the digests depend on these as well."""
        import pyarrow.compute as pc
        import pyarrow.types as types

        cells = self._table.data.column(self._column)
        if not types.is_struct(cells.type) or cells.type.get_field_index("path") < 0:
            return []
        named = pc.struct_field(cells, "path").take(self._rows)
        if cells.type.get_field_index("bytes") >= 0:
            named = named.filter(pc.is_null(pc.struct_field(cells, "bytes")).take(self._rows))
        return sorted({os.path.abspath(path) for path in named.to_pylist() if path})

    def _read(self) -> Iterator[bytes]:
        for index in range(len(self)):
            try:
                yield hashlib.sha256(self._bytes(index)).digest()
            except OSError as error:
                raise BenchError(f"hf: {error.filename or self.ids[index]} cannot be read: {error.strerror}") from None

    def _bytes(self, index: int) -> bytes:
        value = self._table[int(self._rows[index])][self._column]
        if isinstance(value, dict):
            if value.get("bytes") is None and value.get("path"):
                return Path(value["path"]).read_bytes()
            value = value.get("bytes")
        return value if isinstance(value, bytes) else b""

    def _take(self, indices: np.ndarray) -> None:
        self._rows = self._rows[indices]

    def image(self, index: int) -> Image.Image:
        """RGB; raises `DecodeError` for a damaged or missing image."""
        content = self._bytes(index)
        if not content:
            raise DecodeError(self.ids[index], "the row holds no image")
        return decode(io.BytesIO(content), self.ids[index])


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """The library without network and without its own bars."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    bars = datasets.are_progress_bars_disabled()
    level = datasets.logging.get_verbosity()
    datasets.config.HF_HUB_OFFLINE = True
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def _load(path: str, config: str | None) -> dict[str, Any]:
    """The splits by name."""
    import datasets

    given = at_home(path)
    try:
        if given.exists():
            return _local(given, config)
        try:
            found = datasets.load_dataset(path, config)
        except Exception:
            # Not prepared by the library, but perhaps fetched by the hub's client.
            snapshot = cached_snapshot(path)
            if snapshot is None:
                raise
            return _local(snapshot, config)
    except BenchError:
        raise
    except Exception as error:
        # The library raises its own, Arrow's, fsspec's and the operating system's errors, often one around another.
        if given.exists():
            cause = error.__cause__ or error
            raise BenchError(f"hf: {path} cannot be read: {_sentence(cause)}") from None
        raise BenchError(
            f"hf: there is neither a file or folder {path} nor a set of that name in the local cache "
            f"({datasets.config.HF_DATASETS_CACHE}): {_sentence(error)}; give a path, or load the set once where "
            f"there is a network"
        ) from None
    return dict(found)


def _local(given: Path, config: str | None) -> dict[str, Any]:
    import datasets

    if given.is_dir() and any((given / name).is_file() for name in ("state.json", "dataset_dict.json")):
        found = datasets.load_from_disk(str(given))
        return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}
    cache = str(cache_root() / "hf")
    if given.is_dir():
        given, config = folder_of(given, config)
        arrow = sorted(given.glob("*.arrow"))
        for file in arrow:
            regular(file)
        if not arrow:
            return dict(datasets.load_dataset(str(given.resolve()), config, cache_dir=cache))
        return {
            split: datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])
            for split, files in by_split(arrow).items()
        }
    regular(given)
    if given.suffix == ".arrow":
        return {"train": datasets.Dataset.from_file(str(given))}
    if given.suffix not in (".parquet", ".pq"):
        raise BenchError(f"hf: {given} is neither Parquet nor Arrow: its name must end in .parquet or .arrow")
    return dict(datasets.load_dataset("parquet", data_files={"train": str(given.resolve())}, cache_dir=cache))


def _chosen(path: str, splits: dict[str, Any], choices: dict[str, str]) -> tuple[str, str]:
    """Names of the split to learn from and the one to report on (empty: to be held out)."""
    for kind in ("train", "test"):
        if kind in choices and choices[kind] not in splits:
            raise BenchError(f"hf: {path} has no split '{choices[kind]}'{nearest(choices[kind], list(splits))}")
    others = [split for split in ("validation", *TEST) if split in splits]
    train = choices.get("train") or ("train" if "train" in splits else "")
    if not train:
        if len(splits) > 1:
            raise BenchError(
                f"hf: {path} has the splits {', '.join(splits)}: say which to learn from with ?train=SPLIT"
            )
        train = next(iter(splits))
    if choices.get("test") == train:
        raise BenchError(f"hf: {path} cannot be learned from and reported on in the same split '{train}'")
    test = choices.get("test") or next((split for split in others if split != train), "")
    return train, test


def _column(path: str, what: str, features: Any, choices: dict[str, str], found: list[str]) -> str:
    if what in choices:
        if choices[what] not in features:
            raise BenchError(f"hf: {path} has no column '{choices[what]}'{nearest(choices[what], list(features))}")
        return choices[what]
    if len(found) == 1:
        return found[0]
    state = f"has several {what} columns ({', '.join(found)})" if found else f"has no {what} column that can be told"
    raise BenchError(f"hf: {path} {state}; its columns are {', '.join(features)}: choose with ?{what}=COLUMN")


def _image_columns(features: Any) -> list[str]:
    import datasets

    found = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if not found:
        found = [name for name, kind in features.items() if isinstance(kind, dict) and "bytes" in kind]
    if not found:
        found = [name for name, kind in features.items() if getattr(kind, "dtype", "") in ("binary", "large_binary")]
    usual = [name for name in found if name in _IMAGES]
    return usual if len(usual) == 1 else found


def _label_columns(features: Any, image: str) -> list[str]:
    import datasets

    found = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    if found:
        return found
    kinds = {name: str(getattr(kind, "dtype", "")) for name, kind in features.items() if name != image}
    found = [name for name, kind in kinds.items() if kind.startswith(("int", "uint", "string", "large_string", "bool"))]
    usual = [name for name in found if name in _LABELS]
    return usual[:1] if len(usual) == 1 else usual or found


def _images_alone(path: str, split: str, table: Any, image: str) -> Any:
    """The image column, its bytes as stored."""
    import datasets

    if image not in table.features:
        raise BenchError(f"hf: the split '{split}' of {path} has no column '{image}'")
    alone = table.select_columns([image])
    return (
        alone.cast_column(image, datasets.Image(decode=False))
        if isinstance(alone.features[image], datasets.Image)
        else alone
    )


def _values(path: str, split: str, table: Any, label: str) -> list[Any]:
    if label not in table.features:
        raise BenchError(f"hf: the split '{split}' of {path} has no column '{label}'")
    return list(table.select_columns([label]).with_format("arrow")[:].column(label).to_pylist())


def _labels(
    path: str, label: str, columns: list[list[Any]], names: list[str] | None
) -> tuple[Sequence[str], Sequence[int], list[np.ndarray]]:
    """Class names, class numbers and each split's labels."""
    for column in columns:
        missing = sum(value is None or (names is not None and value == -1) for value in column)
        if missing:
            raise BenchError(
                f"hf: {missing} of {len(column)} rows of {path} have no label in '{label}': choose another split with "
                f"?test=SPLIT, or another column with ?label=COLUMN"
            )
    values = {value for column in columns for value in column}
    if all(isinstance(value, (int, np.integer)) for value in values):
        arrays = [np.array(column, dtype=np.int64) for column in columns]
        if names is not None:
            return names, range(len(names)), arrays
        return (*numbered(*arrays), arrays)
    if all(isinstance(value, str) for value in values):
        classes = sorted(values)
        order = {name: number for number, name in enumerate(classes)}
        return classes, range(len(classes)), [np.array([order[v] for v in c], dtype=np.int64) for c in columns]
    raise BenchError(f"hf: the column '{label}' of {path} gives neither a number nor a name per image")


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
