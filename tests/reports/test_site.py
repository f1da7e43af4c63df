"""The leaderboard's files."""

from __future__ import annotations

import csv
import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bench.errors import BenchError
from bench.record import Engine, Record
from reports.board import assemble
from reports.site import publish

Maker = Callable[..., Record]


class Tables(html.parser.HTMLParser):
    """The page's tables as rows of text, and every address that it names."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "action", "data", "srcset"}]
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data + " "


def test_every_number_is_in_page_markdown_and_csv(make: Maker, tmp_path: Path) -> None:
    records = [make("net-a", runs=tmp_path / "runs"), make("net-b", seed=2, accuracy=0.9, runs=tmp_path / "runs")]
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert (summary.records, summary.models, summary.columns, summary.problems) == (2, 2, 10, [])
    assert "2 models in 10 columns from 2 records" in str(summary)
    page = summary.page.read_text()
    table = pd.read_csv(tmp_path / "site" / "leaderboard.csv")
    assert len(table) == 20
    markdown = (tmp_path / "site" / "leaderboard.md").read_text()
    for record in records:
        for m in record.measurements:
            assert f"{m.value:.2f}" in page
            assert (table["value"] == m.value).any(), "the CSV keeps full precision"
            if m.headline:
                assert f"{m.value:.2f}" in markdown
    # The better network comes first.
    assert [row[0].split()[0] for row in Tables(page).rows if len(row) == 3] == ["Model", "net-b", "net-a"]


def test_the_page_asks_the_network_for_nothing(make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    parsed = Tables(publish(tmp_path / "runs", tmp_path / "site").page.read_text())
    assert all(re.fullmatch(r"leaderboard\.(md|csv)", address) for address in parsed.addresses)
    assert not {"script", "link", "iframe", "img"} & set(parsed.tags)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "knn/other@1"},
        {"engine": Engine(name="faiss", version="0.0.1")},
        {"selection": "best_on_test"},
        {"precision": "bf16"},
        {"fingerprint": "sha256:other"},
        {"split": "val"},
        {"feature": {"tokens": "avg", "norm": "odd"}},
        {"train_fingerprint": "sha256:other"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_incomparable_measurements_never_share_a_column(make: Maker, change: dict) -> None:  # type: ignore[type-arg]
    board = assemble([make("net-a"), make("net-b", **change)])
    models = {}
    for model, column in board.cells:
        models.setdefault(column, set()).add(model.name)
    assert all(len(names) == 1 for names in models.values())
    subtitles = [(s.fingerprint, s.split, head.title, head.subtitle) for s in board.sections for head in s.heads]
    assert len(set(subtitles)) == len(subtitles), "a reader can tell the columns apart"


def test_repeats_share_a_cell_and_other_weights_do_not(make: Maker) -> None:
    runs = [make("net-a", run=f"r{i}", seed=i) for i in range(3)]
    other = make("net-a", run="r9")
    other.model.weight_digest = "sha256:ffff"
    board = assemble([*runs, other])
    assert len(board.cards) == 2
    cell = next(cell for cell in board.cells.values() if len(cell.runs) == 3)
    values = [m.value for m in cell.measurements]
    assert cell.value == pytest.approx(sum(values) / 3)
    assert cell.sd == pytest.approx(pd.Series(values).std())
    assert cell.interval is None


EVIL = "<img src=x onerror=alert(1)>\"'`|\n=cmd()\x1b[2J"


def test_hostile_text_is_escaped_everywhere(make: Maker, tmp_path: Path) -> None:
    record = make(EVIL, run="evil", dataset=EVIL, protocol=EVIL, metric=EVIL, runs=tmp_path / "runs")
    assert record.name == EVIL
    (tmp_path / "runs" / "<b>x.json").write_text("{}")
    page = publish(tmp_path / "runs", tmp_path / "site").page.read_text()
    parsed = Tables(page)
    assert not {"img", "b", "script"} & set(parsed.tags)
    assert any(EVIL.split("\n")[0] in cell for row in parsed.rows for cell in row)
    markdown = (tmp_path / "site" / "leaderboard.md").read_text()
    assert "<img" not in markdown
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines() if line.startswith("|")}
    assert len(widths) == 1, "no name breaks the table"


def test_spreadsheets_run_nothing(make: Maker, tmp_path: Path) -> None:
    make("=HYPERLINK(1)", run="a", runs=tmp_path / "runs")
    publish(tmp_path / "runs", tmp_path / "site")
    with open(tmp_path / "site" / "leaderboard.csv", newline="") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row]
    assert "'=HYPERLINK(1)" in cells
    assert not [cell for cell in cells if cell[:1] in {"=", "@"}]


def test_flags_are_shown(make: Maker, tmp_path: Path) -> None:
    make(selection="best_on_test", interval=None, interval_note="x", verified=False, runs=tmp_path / "runs")
    page = publish(tmp_path / "runs", tmp_path / "site").page.read_text()
    markdown = (tmp_path / "site" / "leaderboard.md").read_text()
    for text in (page, markdown):
        assert "selected on test" in text
        assert "unverified" in text


def test_files_that_are_no_records_are_named(make: Maker, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run-net-a.json"
    make(runs=tmp_path / "runs")
    document = json.loads(path.read_text())
    (tmp_path / "runs" / "future.json").write_text(json.dumps({**document, "schema": 7}))
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert summary.records == 1
    assert "future.json is not a bench record of schema 1" in summary.problems[0]
    assert "future.json is not a bench record of schema 1" in summary.page.read_text()
    assert "left out 1 file" in str(summary)


def test_an_empty_ledger_is_a_page_and_no_ledger_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert "no records yet" in publish(tmp_path / "runs", tmp_path / "site").page.read_text()
    with pytest.raises(BenchError, match="no ledger at"):
        publish(tmp_path / "nothing", tmp_path / "site")


def test_out_must_be_a_folder(make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BenchError, match="is a file"):
        publish(tmp_path / "runs", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    publish(tmp_path / "runs", tmp_path / "deep" / "er" / "site")
    publish(tmp_path / "runs", tmp_path / "deep" / "er" / "site")
    assert sorted(p.name for p in (tmp_path / "deep" / "er" / "site").iterdir()) == [
        "index.html", "leaderboard.csv", "leaderboard.md",
    ]  # fmt: skip
