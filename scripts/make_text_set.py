"""A small real text set without a download: sentences of the Python standard library's docstrings.

What is to be told is what a sentence documents.

    python scripts/make_text_set.py OUT [--labels module|kind]

``OUT/train.tsv`` and ``OUT/test.tsv`` have the columns ``text`` and ``label``. The label is the package that a sentence
was written for (``--labels module``, twelve of them), or what it documents (``--labels kind``: a module, a class, a
function). Files, not sentences, are dealt to train and test, so that no text is in both; sentences that occur twice are
left out. The sentences are those of the interpreter that runs this: another Python makes another, similar set.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGES = (
    "asyncio", "concurrent", "email", "http", "importlib", "json", "logging", "multiprocessing", "tkinter", "unittest",
    "urllib", "xml",
)  # fmt: skip
KINDS = {ast.Module: "module", ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "function"}
SHORTEST, LONGEST, MOST = 30, 300, 120
"""Characters of a sentence, and sentences of a class in the training split."""


def sentences(stdlib: Path, labels: str) -> Iterator[tuple[str, str, str]]:
    """(first sentence of a docstring, label, file) of every documented thing."""
    files = [(name, path) for name in PACKAGES for path in sorted((stdlib / name).rglob("*.py"))]
    if labels == "kind":
        files += [(path.stem, path) for path in sorted(stdlib.glob("*.py"))]
    for package, path in files:
        if "test" in path.parts or "site-packages" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if type(node) not in KINDS:
                continue
            paragraph = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())  # type: ignore[arg-type]
            first = re.split(r"(?<=[.!?]) ", paragraph)[0]
            if SHORTEST <= len(first) <= LONGEST:
                label = package if labels == "module" else KINDS[type(node)]  # type: ignore[index]
                yield first, label, path.relative_to(stdlib).as_posix()


def make(out: Path, labels: str = "module", most: int = MOST) -> dict[str, int]:
    """Write both splits; rows by split."""
    found = list(sentences(Path(sysconfig.get_paths()["stdlib"]), labels))
    often = Counter(text for text, _, _ in found)
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "test": []}
    taken: Counter[tuple[str, str]] = Counter()
    # By digest: the order is the same on every machine and has nothing to do with the files.
    for text, label, file in sorted(found, key=lambda row: hashlib.sha256(row[0].encode()).digest()):
        split = "test" if hashlib.sha256(file.encode()).digest()[0] % 3 == 0 else "train"
        if often[text] == 1 and taken[split, label] < most:
            taken[split, label] += 1
            splits[split].append((text, label))
    both = {label for _, label in splits["train"]} & {label for _, label in splits["test"]}
    out.mkdir(parents=True, exist_ok=True)
    splits = {split: [row for row in rows if row[1] in both] for split, rows in splits.items()}
    for split, rows in splits.items():
        lines = ["text\tlabel", *(f"{text}\t{label}" for text, label in rows)]
        (out / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {split: len(rows) for split, rows in splits.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", choices=("module", "kind"), default="module")
    parser.add_argument("--most", type=int, default=MOST, help="sentences of a class and split")
    given = parser.parse_args()
    print(make(given.out, given.labels, given.most))
