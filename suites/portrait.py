"""What a model's page shows of its features: some test images with their nearest neighbours, and a map of the features.

Kept beside the record within a size of its own: a sheet of thumbnails where the samples are images, and a document.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    from bench.dataset import Dataset
    from bench.featureset import FeatureSet
    from bench.suite import Task
    from suites.classification import Labels
    from suites.neighbours import Neighbours

QUERIES = 24
"""Test images that are shown, as far as possible half of them right."""
NEAREST = 5
TILE = 72
"""Pixels of a thumbnail's side."""
BUDGET = 400_000
"""Bytes of the sheet."""
CLASSES = 20
SAMPLES = 300
"""Classes and test samples in the map."""
PERPLEXITY = 30
COMPONENTS = 50


def keep(task: Task, labels: Labels, found: Neighbours, prediction: np.ndarray) -> None:
    """Put ``neighbours.json``, ``neighbours.jpg`` and ``map.json`` into the task's files; nothing without a record.

    ``found``: neighbours of every test sample, nearest first; ``prediction`` int64 [N]: classes in 0..C-1.
    """
    if task.folder is None:
        return
    test, train = task.data["test"], task.data["train"]
    right = prediction == labels.test
    rows = _some(right)
    nearest = found.index[rows, :NEAREST]
    if {"train", "test"} <= set(task.images):
        pictures = [[(task.images["test"], test, int(row))] for row in rows]
        for line, own in zip(pictures, nearest, strict=True):
            line += [(task.images["train"], train, int(i)) for i in own]
        sheet = _sheet(pictures)
        if sheet is not None:
            task.files["neighbours.jpg"] = sheet
            document = {
                "tile": TILE,
                "rows": [
                    {
                        **_sample(test, int(row)),
                        "prediction": _name(test, int(labels.values[prediction[row]])),
                        "right": bool(right[row]),
                        "neighbours": [
                            {**_sample(train, int(i)), "similarity": round(float(s), 4),
                             "right": bool(labels.train[i] == labels.test[row])}
                            for i, s in zip(nearest[k], found.similarity[row, :NEAREST], strict=True)
                        ],
                    }
                    for k, row in enumerate(rows)
                ],
            }  # fmt: skip
            task.files["neighbours.json"] = _json(document)
    drawn = feature_map(task, labels)
    if drawn is not None:
        rows, places, how = drawn
        points = [
            {"x": round(float(x), 3), "y": round(float(y), 3), **_sample(test, int(row)),
             "prediction": _name(test, int(labels.values[prediction[row]])), "right": bool(right[row])}
            for row, (x, y) in zip(rows, places, strict=True)
        ]  # fmt: skip
        task.files["map.json"] = _json({"how": how, "points": points})


def feature_map(task: Task, labels: Labels) -> tuple[np.ndarray, np.ndarray, str] | None:
    """(test rows, places float [M, 2], what was done), or None for fewer than ten samples or features all alike.

    At most `SAMPLES` samples of at most `CLASSES` classes at even distances, L2-normalised, `COMPONENTS` principal
    components, t-SNE (van der Maaten & Hinton 2008) from the first two of them; the same on every run.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    from suites.neighbours import normalised

    known = _evenly(np.unique(labels.test), CLASSES)
    each = max(1, SAMPLES // len(known))
    rows = np.sort(np.concatenate([_evenly(np.flatnonzero(labels.test == c), each) for c in known]))
    if len(rows) < 10:
        return None
    x = normalised(task.data["test"].array("pooled")[rows]).astype(np.float64)
    if not np.ptp(x, axis=0).any():
        return None
    # One thread: sums in another order would draw another map.
    with threadpool_limits(1):
        components = min(COMPONENTS, len(rows) - 1, x.shape[1])
        reduced = PCA(components, svd_solver="full").fit_transform(x)
        if components < 2:
            return None
        places = TSNE(
            perplexity=min(PERPLEXITY, (len(rows) - 1) / 3), init="pca", random_state=0, max_iter=500
        ).fit_transform(reduced)
    if not np.isfinite(places).all():
        return None
    return rows, places, f"t-SNE of {components} principal components, {len(rows)} test samples of {len(known)} classes"


def _some(right: np.ndarray) -> np.ndarray:
    """Rows of about `QUERIES` samples at even distances, half of them wrong where there are as many, in order."""
    wrong = _evenly(np.flatnonzero(~right), QUERIES // 2)
    good = _evenly(np.flatnonzero(right), QUERIES - len(wrong))
    wrong = _evenly(np.flatnonzero(~right), QUERIES - len(good))
    return np.sort(np.concatenate([good, wrong]))


def _evenly(rows: np.ndarray, most: int) -> np.ndarray:
    from suites.drawing import evenly

    return rows[np.array(evenly(len(rows), most), dtype=np.int64)]


def _sample(data: FeatureSet, row: int) -> dict[str, Any]:
    return {"id": str(data.ids[row])[:200], "label": _name(data, int(data.labels[row]))}


def _name(data: FeatureSet, label: int) -> str:
    return str(data.classes.get(label, label))[:80]


def _sheet(pictures: Sequence[Sequence[tuple[Dataset, FeatureSet, int]]]) -> bytes | None:
    """A JPEG, a row of thumbnails for each row; None when an image cannot be had or all would be too large."""
    from PIL import Image

    from bench.dataset import DecodeError

    known: dict[int, dict[str, int]] = {}
    whole = Image.new("RGB", (TILE * max(map(len, pictures)), TILE * len(pictures)), "white")
    for y, line in enumerate(pictures):
        for x, (images, data, row) in enumerate(line):
            name = data.ids[row]
            if row >= len(images) or images.ids[row] != name:
                # Samples that could not be decoded were left out of the features: found by name.
                where = known.setdefault(id(images), {sample: i for i, sample in enumerate(images.ids)})
                if name not in where:
                    return None
                row = where[name]
            try:
                whole.paste(_thumbnail(images.image(row)), (TILE * x, TILE * y))
            except (DecodeError, OSError):
                return None
    for quality in (85, 70, 50):
        stream = io.BytesIO()
        whole.save(stream, format="JPEG", quality=quality, optimize=True)
        if stream.tell() <= BUDGET:
            return stream.getvalue()
    return None


def _thumbnail(image: Image.Image) -> Image.Image:
    from PIL import Image, ImageOps

    way = Image.Resampling.NEAREST if max(image.size) < TILE else Image.Resampling.BICUBIC
    return ImageOps.fit(image.convert("RGB"), (TILE, TILE), way)


def _json(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=True).encode()
