"""The leaderboard as files: a self-contained board, a page per model, Markdown and CSV."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.files import write_atomically
from bench.ledger import Ledger
from bench.record import Measurement, Record, now
from reports import assets, earlier, modelpage, printed, textforms
from reports.board import Board, Model, assemble, frame
from reports.pairing import READ
from reports.pairtables import dcd_tables, improvement_table, students
from reports.pictures import Pictures, pictures
from reports.plots import charts
from reports.tables import KD, SSL, Table, section_table, survey
from reports.wording import brief

if TYPE_CHECKING:
    from jinja2 import Environment

CELLS_ON_PAGE = 6_000
"""Beyond this many measured cells the board shows headline columns alone; the model pages show the rest."""
LEFT_OUT_TOLD = 200
"""Reasons in the section on what was left out."""
_READ = READ | {"confidence", "similarity", "teacher_widths", "difference", "classes"}
_AUDIT = ("basis", "severity", "note")
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass
class Summary:
    """What `publish` wrote."""

    page: Path
    records: int
    models: int
    columns: int
    problems: list[str] = field(default_factory=list)
    removed: int = 0
    """Files of models that an earlier ledger had."""

    def __str__(self) -> str:
        removed = f"; removed {_count(self.removed, 'file')} of models that are gone" if self.removed else ""
        left_out = f"; left out {_count(len(self.problems), 'file')}: {self.problems[0]}" if self.problems else ""
        return (
            f"{self.page}: {_count(self.models, 'model')} in {_count(self.columns, 'column')} "
            f"from {_count(self.records, 'record')}{removed}{brief(left_out, 500)}"
        )


def publish(runs: Path | str, out: Path | str, *, images: bool = True) -> Summary:
    """Write the board made from the ledger ``runs`` into ``out``.

    ``index.html`` needs nothing but itself; ``models/*.html`` need ``assets/charts.js`` and, where their records keep
    pictures and ``images`` lets them be shown, a folder of them; ``leaderboard.md`` and
    ``leaderboard.csv`` hold the measured numbers; ``licences.txt`` those of the libraries in the pages. Files of the
    ledger that are no records are left out and named on the page. What an earlier call wrote into ``out`` of models
    that are gone is removed (`reports.earlier`). Raises `BenchError` for a missing ledger, an ``out`` that is a file, a
    full disk or an unwritable folder.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise BenchError(f"--out {out} is a file: give the folder for the site")
    problems: list[str] = []
    ledger = Ledger(runs)
    board = assemble(ledger.records(problems))
    before, written = earlier.read(out), earlier.Earlier()
    outcomes = _Outcomes(ledger, board)
    files: dict[str, str | bytes] = {
        "assets/charts.js": assets.chart_script(),
        "licences.txt": assets.licences(),
        "leaderboard.csv": textforms.csv(frame(board)),
        "leaderboard.md": textforms.markdown(board),
    }
    templates = _templates()
    pages = {model: f"models/{modelpage.slug(model)}.html" for model in board.cards}
    for model, name in pages.items():
        records = board.records[model]
        shown = pictures(records, ledger, modelpage.slug(model)) if images else Pictures()
        files[name] = _model_page(templates, model, records, outcomes, shown)
        files |= {f"models/{file}": content for file, content in shown.files.items()}
        _write(out, files, written)
    _write(out, files, written)
    # What was there before stays on the list until it is removed, whenever this is cut short.
    earlier.write(out, earlier.Earlier(files=before.files | written.files))
    # Last, so that the board never links to what is not there.
    write_atomically(out / "index.html", page(board, outcomes, pages, problems).encode())
    removed = earlier.remove_stale(out, before, written)
    earlier.write(out, written)
    number = sum(map(len, board.records.values()))
    return Summary(out / "index.html", number, len(board.cards), len(board.columns), problems, removed)


def _write(out: Path, files: dict[str, str | bytes], written: earlier.Earlier) -> None:
    """Write, note and forget: the pictures of a large ledger need not fit into memory."""
    for name, text in files.items():
        content = text.encode() if isinstance(text, str) else text
        # A page that a crash took is made again by the same command; only the board itself must be durable.
        write_atomically(out / name, content, durable=False)
        written.note(name, content)
    files.clear()


def page(board: Board, outcomes: _Outcomes, pages: Mapping[Model, str], problems: list[str]) -> str:
    """The board; every text from a record is escaped."""
    from bench import __version__

    small = sum(map(len, board.columns.values())) <= CELLS_ON_PAGE
    tables = [section_table(board, s, i, outcomes, everything=small) for i, s in enumerate(board.leading)]
    left_out = list(problems)
    shown = {id(section) for section in board.leading}
    if quiet := [f"{s.dataset} {s.split}" for s in board.sections if id(s) not in shown]:
        some = ", ".join(quiet[:3]) + ", ..." * (len(quiet) > 3)
        left_out.append(
            f"{_count(len(quiet), 'data set')} without a headline ({some}): the numbers are in leaderboard.csv and on "
            f"the models' pages"
        )
    surveys = []
    for key, title, columns in (("ssl", "Self-supervised learning", SSL), ("kd", "Knowledge distillation", KD)):
        table, reasons = survey(key, title, columns, board, outcomes)
        surveys.append(table)
        left_out += [f"{title}: {reason}" for reason in reasons]
    taught = students(board)
    tables += [*([taught] if taught else []), *surveys, *dcd_tables(board), improvement_table()]
    for table in tables:
        for row in table["rows"]:
            if "model" in row:
                row["href"] = pages[row.pop("model")]
    drawn = charts(surveys[0], surveys[1], board)
    data = {
        "tables": tables,
        "charts": drawn,
        "audits": [
            {
                "audited": a.audited_value,
                "standing": a.standing,
                "basis": a.basis,
                "severity": a.severity,
                "note": a.note,
            }
            for a in printed.audits()
        ],
    }
    return (
        _templates()
        .get_template("index.html")
        .render(
            tables=[{**table, "groups": _groups(table)} for table in tables],
            charts=drawn,
            audits=printed.audits(),
            left_out=[brief(reason, 1_000) for reason in left_out[:LEFT_OUT_TOLD]]
            + [f"and {len(left_out) - LEFT_OUT_TOLD:,} more"] * (len(left_out) > LEFT_OUT_TOLD),
            models=_count(len(board.cards), "model"),
            records=_count(sum(map(len, board.records.values())), "record"),
            made=now().replace("T", " ").replace("Z", " UTC"),
            version=__version__,
            data=_json(data),
            **_shared("base.css", "board.css"),
            table_style=_verbatim(assets.table_style()),
            table_script=_verbatim(assets.table_script()),
            chart_script=_verbatim(assets.chart_script()),
            script=_source("board.js"),
        )
    )


def _model_page(
    templates: Environment, model: Model, records: list[Record], outcomes: _Outcomes, shown: Pictures
) -> str:
    drawn = modelpage.charts(records, outcomes)
    drawn += [{**chart, "id": f"p{i}"} for i, chart in enumerate(shown.charts)]
    listed = modelpage.measurements(records)
    return templates.get_template("model.html").render(
        model=model,
        facts=modelpage.facts(records[-1]),
        charts=drawn,
        neighbours=shown.neighbours,
        drawings=shown.drawings,
        measurements=listed,
        more=sum(len(r.measurements) for r in records) - len(listed),
        runs=modelpage.runs(records),
        data=_json([{"id": c["id"], "spec": c["spec"]} for c in drawn]),
        **_shared("base.css", "model.css"),
        script=_source("model.js"),
    )


class _Outcomes:
    """Outcome tables by run and measurement; None where one is missing or damaged, which `Ledger.check` reports."""

    def __init__(self, ledger: Ledger, board: Board) -> None:
        self._ledger = ledger
        self._records = {record.run: record for records in board.records.values() for record in records}
        self._known: dict[str, Mapping[str, np.ndarray] | None] = {}

    def __call__(self, run: str, m: Measurement) -> Mapping[str, np.ndarray] | None:
        if m.outcomes is None:
            return None
        if m.outcomes not in self._known:
            # Few are asked for twice, and those soon after another: all of a large ledger would not fit in memory.
            if len(self._known) >= 64:
                self._known.pop(next(iter(self._known)))
            try:
                self._known[m.outcomes] = self._ledger.outcomes(self._records[run], m.outcomes, _READ)
            except BenchError:
                self._known[m.outcomes] = None
        return self._known[m.outcomes]


def _groups(table: Table) -> list[dict[str, Any]]:
    """The head row above the columns' own, neighbours of one group joined; empty when no column has a group."""
    if not any(column["group"] for column in table["columns"]):
        return []
    return [{"title": title, "span": len(list(run))} for title, run in groupby(c["group"] for c in table["columns"])]


def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shared(*styles: str) -> dict[str, Any]:
    return {"style": _verbatim("\n".join(map(_source, styles))), "theme_script": _source("theme.js")}


def _source(name: str) -> Any:
    from importlib.resources import files

    return _verbatim(files("reports").joinpath("templates", name).read_text(encoding="utf-8"))


def _verbatim(text: str) -> Any:
    """Our own or a library's code, which escaping would break; never text from a record."""
    from markupsafe import Markup

    return Markup(text)


def _json(document: Any) -> Any:
    """JSON inside a script element: no text in it can end the element or open a comment."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, code in _UNSAFE.items():
        text = text.replace(character, code)
    return _verbatim(text)


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
