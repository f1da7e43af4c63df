"""The board as Markdown and CSV."""

from __future__ import annotations

import pandas as pd

from reports.board import Board, Cell
from reports.wording import digits, markdown_text


def markdown(board: Board) -> str:
    """One table per data set with its headline columns, in GitHub's Markdown."""
    parts = ["# Leaderboard", ""]
    for section in board.leading:
        heads = [head for head in section.heads if head.headline] or section.heads
        title = markdown_text(f"{section.dataset} {section.split}")
        parts += [f"## {title}, {section.samples:,} samples", ""]
        parts.append("| model | " + " | ".join(markdown_text(f"{h.title} ({h.subtitle})") for h in heads) + " |")
        parts.append("| --- |" + " ---: |" * len(heads))
        for model in section.models:
            cells = [board.columns[head.column].get(model) for head in heads]
            if any(cells):
                parts.append(f"| {markdown_text(model.name)} | " + " | ".join(map(_cell, cells)) + " |")
        parts.append("")
    return "\n".join(parts)


def csv(table: pd.DataFrame) -> str:
    """The frame as CSV; a text that a spreadsheet would run as a formula is quoted by an apostrophe."""
    safe = table.copy()
    for name in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[name]):
            safe[name] = [_no_formula(v) if isinstance(v, str) else v for v in safe[name]]
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    at = digits(cell.newest.unit)
    parts = [f"{cell.value:.{at}f}"]
    if cell.interval is not None:
        parts.append(f"[{cell.interval[0]:.{at}f}, {cell.interval[1]:.{at}f}]")
    elif len(cell.runs) > 1 and cell.sd is not None:
        parts.append(f"± {cell.sd:.{at}f} sd of {len(cell.runs)} runs")
    return " ".join([*parts, *cell.flags])


def _no_formula(text: str) -> str:
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
