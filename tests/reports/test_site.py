"""The leaderboard's files."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import vl_convert
from recordhelp import Maker
from sitehelp import Page, board_of, measured_table

from bench.errors import BenchError
from bench.record import Engine
from reports.board import assemble
from reports.comparable import Column
from reports.site import publish
from reports.terminal import notes


def test_every_number_is_in_page_markdown_csv_and_model_page(make: Maker, tmp_path: Path) -> None:
    records = [make("net-a", runs=tmp_path / "runs"), make("net-b", seed=2, accuracy=0.9, runs=tmp_path / "runs")]
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert (summary.records, summary.models, summary.columns, summary.problems) == (2, 2, 10, [])
    assert "2 models in 10 columns from 2 records" in str(summary)
    table = pd.read_csv(tmp_path / "site" / "leaderboard.csv")
    assert len(table) == 20
    markdown = (tmp_path / "site" / "leaderboard.md").read_text()
    rows = {row["cells"][0]: row for row in measured_table(summary)["rows"]}
    assert list(rows) == ["net-b", "net-a"], "the better network comes first"
    for record in records:
        shown = {cell["v"] for cell in rows[record.name]["cells"][3:] if cell}
        page = (tmp_path / "site" / rows[record.name]["href"]).read_text()
        for m in record.measurements:
            assert f"{m.value:.2f}" in shown
            assert f"{m.value:.2f}" in page
            assert (table["value"] == m.value).any(), "the CSV keeps full precision"
            if m.headline:
                assert f"{m.value:.2f}" in markdown


def test_the_pages_ask_the_network_for_nothing(make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    site = tmp_path / "site"
    summary = publish(tmp_path / "runs", site)
    assert summary.page.stat().st_size < 3_000_000
    for path in [summary.page, *(site / "models").iterdir()]:
        parsed = Page(path.read_text())
        assert not {"iframe", "img", "object", "embed"} & set(parsed.tags)
        for address in parsed.addresses:
            if address != "data:," and not address.startswith("#"):
                assert (path.parent / address).resolve().is_relative_to(site), address
                assert (path.parent / address).exists(), address


def test_the_licences_of_the_libraries_are_there(make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    publish(tmp_path / "runs", tmp_path / "site")
    text = (tmp_path / "site" / "licences.txt").read_text()
    for word in ("itables", "MIT License", "DataTables", "Vega-Lite", "BSD-3-Clause", "vl-convert-python"):
        assert word in text


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
    models: dict[Column, set[str]] = {}
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


@pytest.mark.parametrize("reading", [{"architecture": "vit_quickgelu"}, {"feature": "embed"}])
def test_the_same_weights_read_in_another_way_are_another_row(make: Maker, reading: dict[str, str]) -> None:
    first, second = make("net-a", run="r1"), make("net-a", run="r2")
    second.model = second.model.model_copy(update=reading)
    for m in second.measurements:
        m.feature = m.feature | {"tokens": second.model.feature}
    board = assemble([first, second])
    assert len(board.cards) == 2
    assert all(len(cell.runs) == 1 for cell in board.cells.values())


EVIL = "<img src=x onerror=alert(1)>\"'`|\n=cmd()\x1b[2J"


def test_hostile_text_is_escaped_everywhere(make: Maker, tmp_path: Path) -> None:
    card = make().model.model_copy(update={"architecture": EVIL, "method": EVIL, "hazards": [EVIL], "spec": EVIL})
    changes = {"dataset": EVIL, "protocol": EVIL, "metric": EVIL, "split": EVIL, "created": EVIL}
    record = make(EVIL, run="evil", model=card, **changes, environment={"platform": EVIL}, runs=tmp_path / "runs")
    assert record.name == EVIL
    (tmp_path / "runs" / "<b>x.json").write_text("{}")
    summary = publish(tmp_path / "runs", tmp_path / "site")
    [row] = [row for row in measured_table(summary)["rows"] if row["kind"] == "measured"]
    assert row["cells"][0] == EVIL
    for path in [summary.page, *(tmp_path / "site" / "models").iterdir()]:
        parsed = Page(path.read_text())
        assert not {"img", "b", "base"} & set(parsed.tags)
        assert EVIL.split("\n")[0] in parsed.text
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
    summary = publish(tmp_path / "runs", tmp_path / "site")
    [row] = measured_table(summary)["rows"]
    markdown = (tmp_path / "site" / "leaderboard.md").read_text()
    for text in (row["cells"][3]["d"], markdown):
        assert "selected on test" in text
        assert "unverified" in text


def test_ties_are_bold_too(make: Maker, tmp_path: Path) -> None:
    for i, (name, accuracy) in enumerate([("best", 0.90), ("near", 0.895), ("far", 0.6)]):
        make(name, seed=i, accuracy=accuracy, runs=tmp_path / "runs")
    rows = measured_table(publish(tmp_path / "runs", tmp_path / "site"))["rows"]
    bold = {row["cells"][0]: [cell.get("b", 0) for cell in row["cells"][3:5]] for row in rows}
    assert bold["far"] == [0, 0]
    assert any(bold["best"])
    assert any(bold["near"])
    assert "rank 3" in next(row for row in rows if row["cells"][0] == "far")["cells"][3]["d"]
    assert "not distinguishable from the best" in str([row["cells"][3:5] for row in rows])


def test_columns_of_most_models_come_first(make: Maker, tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b")):
        make(name, seed=i, runs=tmp_path / "runs")
    only = make("c", seed=3).measurements[0].model_copy(
        update={"suite": "agreement", "protocol": "agreement/x@1", "metric": "agreement", "headline": True}
    )  # fmt: skip
    make("c", seed=3, measurements=[only], runs=tmp_path / "runs")
    columns = measured_table(publish(tmp_path / "runs", tmp_path / "site"))["columns"]
    assert [c["title"] for c in columns if not c.get("hidden")][3:] == ["top1", "top1", "agreement"]


def test_sets_without_a_headline_are_named_and_have_no_table(make: Maker, tmp_path: Path) -> None:
    loud = make("a").measurements
    quiet = [
        m.model_copy(update={"headline": False, "dataset": f"fog-{i}", "fingerprint": f"sha256:{i}"})
        for i, m in enumerate(loud[:5])
    ]
    make("a", measurements=[*loud, *quiet], runs=tmp_path / "runs")
    text = publish(tmp_path / "runs", tmp_path / "site").page.read_text()
    assert [t["title"] for t in Page(text).documents["board-data"]["tables"] if t["id"].startswith("measured")] == [
        "fashion-mnist test"
    ]
    assert "5 data sets without a headline (fog-0 test, fog-1 test, fog-2 test, ...)" in text
    assert "fog-4" not in (tmp_path / "site" / "leaderboard.md").read_text()
    assert "fog-4" in (tmp_path / "site" / "leaderboard.csv").read_text()


def test_a_set_without_a_headline_shows_its_numbers(make: Maker, tmp_path: Path) -> None:
    quiet = [m.model_copy(update={"headline": False}) for m in make("a").measurements]
    make("a", measurements=quiet, runs=tmp_path / "runs")
    columns = measured_table(publish(tmp_path / "runs", tmp_path / "site"))["columns"]
    assert sum(not c.get("hidden") for c in columns) > 3


def test_a_missing_artifact_costs_its_charts_alone(make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "artifacts")
    summary = publish(tmp_path / "runs", tmp_path / "site")
    page = next((tmp_path / "site" / "models").iterdir()).read_text()
    assert "top1 over k" in page
    assert "confusion" not in page
    assert summary.problems == []


@pytest.mark.parametrize(
    "details",
    [
        {"path": 5, "curve": 5},
        {"path": [5, {"C": "x"}, {}], "curve": [{}, 5], "chosen": []},
        {"without_training_samples": {}, "left_out": {"test": 5, "train": {"corrupt": "x"}}},
        {"class_names": 5},
        {"class_names": {"0": 5, "1": {}, "2": "</script><b>", "x": None}},
    ],
)
def test_details_of_another_make_are_left_alone(make: Maker, tmp_path: Path, details: dict[str, object]) -> None:
    """A third party's suite says in its details what it likes."""
    record = make(details=details, runs=tmp_path / "runs")
    assert publish(tmp_path / "runs", tmp_path / "site").problems == []
    assert isinstance(notes(record.measurements), list)


def test_model_pages_draw_what_the_record_has(make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    publish(tmp_path / "runs", tmp_path / "site")
    page = Page(next((tmp_path / "site" / "models").iterdir()).read_text())
    for title in ("top1 over k", "linear: accuracy over C", "knn top1: accuracy by class", "knn top1: confusion"):
        assert title in page.text
    specs = [chart["spec"] for chart in page.documents["charts"]]
    for spec in specs:
        assert vl_convert.vegalite_to_svg(spec).startswith("<svg"), "a document that Vega-Lite accepts"
    confusion = next(s for s in specs if s.get("mark") == "rect")
    table = np.load(tmp_path / "runs" / "artifacts" / "run-net-a" / "knn-k20-T0.07.npz")
    assert sum(v["n"] for v in confusion["data"]["values"]) == len(table["label"])
    right = sum(v["n"] for v in confusion["data"]["values"] if v["t"] == v["p"])
    assert right == table["correct"].sum()


def test_classes_have_their_names_where_the_record_says_them(make: Maker, tmp_path: Path) -> None:
    names = {"0": "crane", "1": "crane", "2": "</script>", "3": "n" * 90}
    make(runs=tmp_path / "runs", details={"class_names": names})
    publish(tmp_path / "runs", tmp_path / "site")
    page = Page(next((tmp_path / "site" / "models").iterdir()).read_text())
    confusion = next(c["spec"] for c in page.documents["charts"] if c["spec"].get("mark") == "rect")
    table = np.load(tmp_path / "runs" / "artifacts" / "run-net-a" / "knn-k20-T0.07.npz")
    drawn = {v["t"] for v in confusion["data"]["values"]}
    # Two classes of one name stay two, a class without a name keeps its number.
    assert drawn == {"crane (0)", "crane (1)", "</script>", "n" * 31 + "…", *map(str, range(4, 10))}
    mine = sum(v["n"] for v in confusion["data"]["values"] if v["t"] == "crane (1)")
    assert mine == (table["label"] == 1).sum()


def test_measured_imagenet_stands_beside_the_survey(make: Maker, tmp_path: Path) -> None:
    make("mine", dataset="imagenet", accuracy=0.7, runs=tmp_path / "runs")
    other = {"engine": Engine(name="torch", version="9")}
    make("theirs", dataset="imagenet", **other, runs=tmp_path / "runs")
    make("third", dataset="imagenet", seed=3, runs=tmp_path / "runs")
    summary = publish(tmp_path / "runs", tmp_path / "site")
    ssl = next(t for t in board_of(summary)["tables"] if t["id"] == "ssl")
    keys = [c["key"] for c in ssl["columns"]]
    measured = {row["cells"][0]: row["cells"] for row in ssl["rows"] if row["kind"] == "measured"}
    assert set(measured) == {"mine", "third"}, "another engine never shares the column"
    assert measured["mine"][keys.index("in1k_knn")]["v"] == f"{make('mine', accuracy=0.7).measurements[2].value:.2f}"
    assert measured["mine"][keys.index("in1k_lp_uniform")] is not None
    assert measured["mine"][keys.index("in1k_lp")] is None
    assert "not comparable with the 2 shown: engine" in Page(summary.page.read_text()).text


def test_files_that_are_no_records_are_named(make: Maker, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run-net-a.json"
    make(runs=tmp_path / "runs")
    document = json.loads(path.read_text())
    (tmp_path / "runs" / "future.json").write_text(json.dumps({**document, "schema": 7}))
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert summary.records == 1
    assert "future.json is a record of schema 7" in summary.problems[0]
    assert "future.json is a record of schema 7" in summary.page.read_text()
    assert "left out 1 file" in str(summary)


def test_an_empty_ledger_is_a_page_and_no_ledger_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    summary = publish(tmp_path / "runs", tmp_path / "site")
    assert [t["id"] for t in board_of(summary)["tables"]] == [
        "ssl", "kd", "dcd1", "dcd2", "dcd3", "dcd4", "improvement",
    ]  # fmt: skip
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
        ".published.json", "assets", "index.html", "leaderboard.csv", "leaderboard.md", "licences.txt", "models",
    ]  # fmt: skip


def test_a_measured_text_encoder_fills_the_surveys_glue_and_squad(make: Maker, tmp_path: Path) -> None:
    m = make().measurements[0].model_copy(update={"outcomes": None, "headline": True, "settings": {}})
    glue = {"suite": "glue", "protocol": "glue/bert-2e-5@1", "dataset": "glue", "split": "dev"}
    measurements = [
        m.model_copy(update={**glue, "metric": "avg", "value": 78.25}),
        m.model_copy(update={**glue, "metric": "avg_wnli", "value": 75.5, "headline": False}),
        m.model_copy(
            update={"suite": "squad", "protocol": "squad/bert@1", "dataset": "squad", "metric": "f1", "value": 88.5}
        ),
    ]
    make("encoder", measurements=measurements, runs=tmp_path / "runs")
    tables = board_of(publish(tmp_path / "runs", tmp_path / "site"))["tables"]
    kd = next(t for t in tables if t["id"] == "kd")
    [row] = [row for row in kd["rows"] if row["kind"] == "measured"]
    shown = dict(zip([c["key"] for c in kd["columns"]], row["cells"], strict=True))
    assert (shown["glue_avg"]["v"], shown["squad11_f1"]["v"]) == ("78.25", "88.50")


def test_what_every_cell_says_is_said_by_the_column(make: Maker, tmp_path: Path) -> None:
    make("a", runs=tmp_path / "runs")
    make("b", seed=2, runs=tmp_path / "runs")
    table = measured_table(publish(tmp_path / "runs", tmp_path / "site"))
    for index, column in enumerate(table["columns"][3:], 3):
        assert column["tip"].startswith("n 1,000; 1 run; seeds 0\n")
        for row in table["rows"]:
            assert re.fullmatch(r"rank 1( to 2|)(, not .*)?|rank 2", row["cells"][index]["d"])
    make("c", seed=3, n=500, runs=tmp_path / "runs")
    table = measured_table(publish(tmp_path / "runs", tmp_path / "site"))
    assert table["columns"][3]["tip"].startswith("1 run; seeds 0\n")
    assert {row["cells"][3]["d"].partition(";")[0] for row in table["rows"]} == {"n 1,000", "n 500"}


def test_zero_shot_numbers_bear_their_mark(make: Maker, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    m = make().measurements[0].model_copy(update={"outcomes": None, "headline": True, "metric": "top1"})
    zero = m.model_copy(update={"suite": "zeroshot", "protocol": "zeroshot/openai@1", "dataset": "imagenet"})
    probe = m.model_copy(update={"suite": "linear", "protocol": "linear/mae@1", "dataset": "imagenet", "value": 61.0})
    make("clip", measurements=[zero.model_copy(update={"value": 63.25})], runs=runs)
    make("both", measurements=[zero.model_copy(update={"value": 60.0}), probe], seed=2, runs=runs)
    summary = publish(runs, tmp_path / "site")
    survey = next(t for t in board_of(summary)["tables"] if t["id"] == "ssl")
    at = [c["key"] for c in survey["columns"]].index("in1k_lp")
    cells = {row["cells"][0]: row["cells"][at] for row in survey["rows"] if row["kind"] == "measured"}
    assert (cells["clip"]["v"], cells["clip"]["z"]) == ("63.25*", 1)
    assert "b" not in cells["clip"]
    assert "rank" not in cells["clip"]["d"]
    # A probe's number of its own is what the column is of.
    assert cells["both"]["v"] == "61.00"
    table = measured_table(summary)
    assert "* zero-shot" in table["note"]
    assert {cell["v"] for row in table["rows"] for cell in row["cells"][3:] if cell} == {"63.25*", "60.00*", "61.00"}
