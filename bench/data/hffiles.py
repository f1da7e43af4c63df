"""Files of a Hugging Face set on disk: whole or not, of one configuration or several, and of which split."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.data.imagefolder import TEST, TRAIN
from bench.errors import BenchError

_SUFFIXES = frozenset({".parquet", ".pq", ".arrow"})
_SHARD = re.compile(r"-(\d+)-of-(\d+)(?:-[0-9a-f]+)?$")
"""How the library numbers the files of a split: ``train-00002-of-00005``, with or without a digest."""


def folder_of(folder: Path, config: str | None) -> tuple[Path, str | None]:
    """The folder to open and the configuration left to choose there.

    A set whose README lists its configurations is opened as a whole; otherwise a configuration is a sub-folder.
    Raises `BenchError` when files of a split are missing, or when a split lies in several sub-folders, which the
    library would silently take together.
    """
    described = _described(folder)
    if config is not None and not described:
        if not (folder / config).is_dir():
            raise BenchError(f"hf: {folder} has no configuration '{config}': there is no such sub-folder")
        folder, config = folder / config, None
    files = list(_files(folder))
    _check_whole(files)
    if not described:
        _check_one(folder, files)
    return folder, config


def by_split(files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by the split in their names; a name with none of the usual ones is a split of its own."""
    splits: dict[str, list[Path]] = {}
    for path in files:
        stem = _SHARD.sub("", path.stem)
        splits.setdefault(_word(stem) or stem, []).append(path)
    return splits


def cached_snapshot(name: str) -> Path | None:
    """Where the hub's client keeps the set ``name``, when its files were fetched before; nothing is downloaded."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
        return None
    return folder if any(_files(folder)) else None


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)
        if path.suffix.lower() in _SUFFIXES and not hidden and path.is_file():
            yield path


def _described(folder: Path) -> bool:
    try:
        head = (folder / "README.md").read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
    except OSError:
        return (folder / ".huggingface.yaml").exists()
    return head.startswith("---") and re.search(r"^configs:", head, re.MULTILINE) is not None


def _check_whole(files: Iterable[Path]) -> None:
    found: dict[tuple[Path, int], set[int]] = defaultdict(set)
    for path in files:
        if mark := _SHARD.search(path.stem):
            found[path.with_name(path.stem[: mark.start()]), int(mark[2])].add(int(mark[1]))
    for (stem, total), numbers in found.items():
        if len(numbers) < total:
            raise BenchError(
                f"hf: {len(numbers)} of the {total} files {stem}-*-of-{total:05d} are here: "
                f"provide the others, or remove these if that split is not wanted"
            )


def _check_one(folder: Path, files: Iterable[Path]) -> None:
    holders: dict[str, set[Path]] = defaultdict(set)
    for path in files:
        relative = path.relative_to(folder)
        if word := _word(_SHARD.sub("", path.stem)):
            holders[word].add(relative.parent)
            continue
        for parent in relative.parents:
            if word := _word(parent.name):
                holders[word].add(parent.parent)
                break
    for split, places in holders.items():
        if len(places) > 1:
            several = ", ".join(sorted(place.as_posix() for place in places))
            raise BenchError(
                f"hf: the split '{split}' of {folder} lies in several folders ({several}), as configurations do: "
                f"choose one with ?config=FOLDER"
            )


def _word(name: str) -> str:
    """The usual split among the words of ``name``, or nothing."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((split for split in (*TRAIN, *TEST) if split in words), "")
