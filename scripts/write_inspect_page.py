"""Writes the outputs of `bench inspect` into docs/inspect.md again: ``python scripts/write_inspect_page.py``.

Each mark ``<!-- FIXTURE[@VARIANT] [pickled] -->`` in the page is followed by what `bench inspect` says of that file of
tests/golden/layouts; ``pickled``: with the objects of other classes that the official code leaves in it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "inspect.md"
GOLDEN = ROOT / "tests" / "golden" / "layouts"
_MARK = re.compile(r"<!-- ([\w@.-]+)( pickled)? -->\n(?:\n```console\n(.*?)\n```\n)?", re.DOTALL)


class Shown(NamedTuple):
    """One output on the page."""

    fixture: str
    variant: str | None
    pickled: bool
    text: str


def shown(page: str) -> list[Shown]:
    """What the page shows, in order."""
    found = []
    for mark in _MARK.finditer(page):
        fixture, _, variant = mark[1].partition("@")
        found.append(Shown(fixture, variant or None, bool(mark[2]), mark[3] or ""))
    return found


def output(one: Shown, folder: Path) -> str:
    """The command and its output for a fixture's file, made in ``folder``."""
    import bench
    from reports.inspection import render

    spec = importlib.util.spec_from_file_location("make_checkpoint", GOLDEN / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    manifest = GOLDEN / one.fixture / "manifest.json"
    info = json.loads(manifest.read_text())
    file = (info["variants"][one.variant] if one.variant else info)["file"]
    form = file.get("form", "torch")
    name = one.fixture if form == "folder" else Path(file["name"]).name
    with _inside(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript's, about its own age
        maker.save(maker.make(str(manifest), one.pickled, one.variant), name, form)
        return f"$ bench inspect --model {name}\n{render(bench.load(name).card)}"


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> None:
    sys.path.insert(0, str(ROOT))
    page = PAGE.read_text(encoding="utf-8")
    for one in shown(page):
        with tempfile.TemporaryDirectory() as folder:
            text = output(one, Path(folder))
        name = f"{one.fixture}@{one.variant}" if one.variant else one.fixture
        mark = f"<!-- {name}{' pickled' if one.pickled else ''} -->\n"
        page = re.sub(
            re.escape(mark) + r"(?:\n```console\n.*?\n```\n)?",
            lambda _, mark=mark, text=text: f"{mark}\n```console\n{text}\n```\n",
            page,
            flags=re.DOTALL,
        )
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
