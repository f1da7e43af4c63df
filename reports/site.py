"""The leaderboard as files: a self-contained page, Markdown and CSV."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.errors import BenchError
from bench.files import write_atomically
from bench.ledger import Ledger
from reports.board import Board, Section, assemble, frame
from reports.wording import digits, markdown_text


@dataclass
class Summary:
    """What `publish` wrote."""

    page: Path
    records: int
    models: int
    columns: int
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        left_out = f"; left out {_count(len(self.problems), 'file')}: {self.problems[0]}" if self.problems else ""
        return (
            f"{self.page}: {_count(self.models, 'model')} in {_count(self.columns, 'column')} "
            f"from {_count(self.records, 'record')}{left_out}"
        )


def publish(runs: Path | str, out: Path | str) -> Summary:
    """Write ``index.html``, ``leaderboard.md`` and ``leaderboard.csv`` made from the ledger ``runs`` into ``out``.

    The page needs nothing but itself. Files of the ledger that are no records are left out and named on the page.
    Raises `BenchError` for a missing ledger, an ``out`` that is a file, a full disk or an unwritable folder.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise BenchError(f"--out {out} is a file: give the folder for the site")
    problems: list[str] = []
    board = assemble(Ledger(runs).records(problems))
    files = {
        "leaderboard.csv": table_csv(frame(board)),
        "leaderboard.md": markdown(board),
        # Last, so that a page is never older than what it links to.
        "index.html": page(board, problems),
    }
    for name, text in files.items():
        write_atomically(out / name, text.encode())
    columns = len({column for _, column in board.cells})
    return Summary(out / "index.html", board.records, len(board.cards), columns, problems)


def page(board: Board, problems: list[str]) -> str:
    """The leaderboard page; every text from a record is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html").render(
        board=board, problems=problems, value=_value, interval=_interval, best=_best
    )


def markdown(board: Board) -> str:
    """One table per data set with its headline columns, in GitHub's Markdown."""
    parts = ["# Leaderboard", ""]
    for section in board.sections:
        heads = [head for head in section.heads if head.headline] or section.heads
        parts += [
            f"## {markdown_text(section.dataset)} {markdown_text(section.split)}, {section.samples:,} samples",
            "",
        ]
        parts.append(
            "| model | " + " | ".join(f"{markdown_text(h.title)} ({markdown_text(h.subtitle)})" for h in heads) + " |"
        )
        parts.append("| --- |" + " ---: |" * len(heads))
        for model in section.models:
            cells = [board.cells.get((model, head.column)) for head in heads]
            if any(cells):
                texts = [" ".join(filter(None, (_value(c), _interval(c), *c.flags))) if c else "–" for c in cells]
                parts.append(f"| {markdown_text(model.name)} | " + " | ".join(texts) + " |")
        parts.append("")
    return "\n".join(parts)


def table_csv(table: pd.DataFrame) -> str:
    """The frame as CSV; a text that a spreadsheet would run as a formula is quoted by an apostrophe."""
    safe = table.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = [_no_formula(v) if isinstance(v, str) else v for v in safe[name]]
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text


def _no_formula(text: str) -> str:
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


def _value(cell) -> str:  # type: ignore[no-untyped-def]
    return f"{cell.value:.{digits(cell.newest.unit)}f}"


def _interval(cell) -> str:  # type: ignore[no-untyped-def]
    if len(cell.runs) > 1 and cell.interval is None:
        return f"± {cell.sd:.2f} sd of {len(cell.runs)} runs"
    if cell.interval is None:
        return ""
    places = digits(cell.newest.unit)
    return f"[{cell.interval[0]:.{places}f}, {cell.interval[1]:.{places}f}]"


def _best(board: Board, section: Section) -> set[tuple[object, object]]:
    """The (model, column) of each column's best value; nothing is best among one."""
    found: set[tuple[object, object]] = set()
    for head in section.heads:
        values = {m: board.cells[m, head.column].value for m in section.models if (m, head.column) in board.cells}
        if len(values) > 1:
            top = max(values.values()) if head.column.direction == "higher" else min(values.values())
            found |= {(model, head.column) for model, value in values.items() if value == top}
    return found


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
