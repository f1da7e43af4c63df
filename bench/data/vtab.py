"""``vtab1k:NAME``: a task of VTAB-1k by its exact lists: train800.txt + val200.txt to learn from, test.txt whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.data.files import FileDataset
from bench.data.labelled import numbered
from bench.data.listed import at
from bench.dataset import Splits
from bench.errors import BenchError
from bench.registry import nearest

NATURAL = ("caltech101", "cifar", "dtd", "oxford_flowers102", "oxford_iiit_pet", "svhn", "sun397")
SPECIALIZED = ("patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy")
STRUCTURED = (
    "clevr_count", "clevr_dist", "dmlab", "kitti", "dsprites_loc", "dsprites_ori", "smallnorb_azi", "smallnorb_ele",
)  # fmt: skip
TASKS = (*NATURAL, *SPECIALIZED, *STRUCTURED)


def open_vtab1k(rest: str) -> Splits:
    """``$BENCH_DATA/vtab-1k/NAME``: lists of lines ``path label``, paths relative to the task's folder.

    800 + 200 samples by the published rule (the first ones of train and of val in the order of the published build);
    only lists can say which those are, so a folder without them is refused rather than drawn anew.
    """
    if rest not in TASKS:
        raise BenchError(f"vtab1k has no task '{rest}'{nearest(rest, list(TASKS))}")
    provide = "put the tasks there, each a folder with images/, train800.txt, val200.txt and test.txt"
    root = at("vtab-1k", "", provide) / rest
    if not root.is_dir():
        raise BenchError(
            f"the VTAB-1k task '{rest}' is not here (looked in {root}): {provide.replace('there', 'in it')}"
        )
    train, validation, test = (_list(root / f"{name}.txt") for name in ("train800", "val200", "test"))
    for name, part, wanted in (("train800", train, 800), ("val200", validation, 200)):
        if len(part) != wanted:
            raise BenchError(f"vtab1k: {root / name}.txt lists {len(part)} images: VTAB-1k has exactly {wanted}")
    learned = [*train, *validation]
    classes, class_ids = numbered(*(np.array([label for _, label in part]) for part in (learned, test)))
    name = f"vtab1k-{rest}"
    sets = [
        FileDataset(name, split, root, [path for path, _ in part], [label for _, label in part], classes, class_ids)
        for split, part in (("train800+val200", learned), ("test", test))
    ]
    sets[0].validation = np.arange(len(learned)) >= len(train)
    return Splits(*sets)


def _list(path: Path) -> list[tuple[str, int]]:
    try:
        rows = [line.rsplit(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [(name, int(label)) for name, label in rows]
    except OSError as error:
        raise BenchError(f"vtab1k: the list {path} cannot be read ({error.strerror or error}): put it there") from None
    except ValueError:
        raise BenchError(f"vtab1k: {path} has a line that is no path and label") from None
