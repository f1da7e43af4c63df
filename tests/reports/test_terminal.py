"""The terminal table: what a reader finds, at 80 columns and without a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from recordhelp import Maker
from rich.console import Console

from bench.record import Record
from reports.terminal import duration, notes, show


def printed(record: Record, width: int = 80, **given: Any) -> str:
    stream = io.StringIO()
    show(record, Console(file=stream, width=width, highlight=False, **given.pop("console", {})), **given)
    return stream.getvalue()


def test_every_number_and_its_interval(make: Maker) -> None:
    record = make()
    text = printed(record)
    for m in record.measurements:
        assert f"{m.value:.2f}" in text
        assert m.interval is not None
        assert f"{m.interval[0]:.2f} … {m.interval[1]:.2f}" in text
    lines = text.splitlines()
    # One line per k, with both metrics in it, the constant temperature said once.
    ks = [line for line in lines if re.search(r"k=\d+ ", line)]
    assert [re.search(r"k=(\d+)", line)[1] for line in ks] == ["10", "20", "100", "200"]  # type: ignore[index]
    assert all(line.count("…") == 2 for line in ks)
    assert text.count("temperature=0.07") == 1
    assert [line.strip()[0] == "›" for line in ks] == [False, True, False, False]
    assert "fashion-mnist test, 1,000 samples, 4f0c9a1b2d3e" in text
    assert "358/358 tensors" in text
    assert "resize 256 bicubic" in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_lines_fit_and_are_plain_without_a_terminal(make: Maker, width: int) -> None:
    text = printed(make(verified=False, teacher=make().model), width, path="runs/" + "x" * 90 + ".json")
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text


def test_headline_is_bold_on_a_terminal(make: Maker) -> None:
    text = printed(make(), console={"force_terminal": True})
    headline = f"{make().measurements[2].value:.2f}"
    assert re.search(rf"\x1b\[1m{headline}", text)


def test_path_is_whole_and_left_out_when_nothing_was_written(make: Maker) -> None:
    assert "record  runs/a.json" in printed(make(), path="runs/a.json")
    assert "  record" not in printed(make())


def test_warnings_are_said_once(make: Maker) -> None:
    record = make(
        selection="best_on_test", interval=None, interval_note="selected on test", verified=False,
        details={"left_out": {"train": {"corrupt": 3, "corrupt_images": ["train/a.png"]}}},
    )  # fmt: skip
    flat = " ".join(printed(record).split())
    sections = 2
    assert flat.count("Selected on test: the best of several") == sections
    assert flat.count("Unverified: the protocol card") == sections
    assert flat.count("left out: 3 of train") == sections
    assert "none" in flat
    quiet = printed(make())
    assert "elected on test" not in quiet
    assert "nverified" not in quiet
    other = printed(make(interval=None, interval_note="bootstrap needs two samples"))
    assert "top1: bootstrap needs two samples" in other


def test_one_reason_of_several_numbers_is_said_once_with_their_names(make: Maker) -> None:
    group = make(interval=None, interval_note="a statistic of the whole").measurements
    without = dict.fromkeys(m.metric for m in group if m.interval is None)
    assert len(without) > 1
    assert notes(group) == [f"{', '.join(without)}: a statistic of the whole"]


def test_more_neighbours_than_there_are_is_said(make: Maker) -> None:
    group = make(details={"neighbours": 60}).measurements
    assert "k=200: the training split has only 60 neighbours to give, and all of them vote" in notes(group)


def test_networks_of_a_comparison_are_the_lines_of_one_table(make: Maker) -> None:
    record = make()
    of = record.measurements[0]
    shared = {"teacher": "t#1"}
    pair = [of.model_copy(update={"metric": "agreement", "value": 81.25, "settings": shared, "headline": True})]
    values = {
        ("student", "top1"): 70.5,
        ("student", "ece"): 0.125,
        ("teacher", "top1"): 80.25,
        ("teacher", "ece"): 0.25,
    }
    for (network, metric), value in values.items():
        more = {"bins": 15} if metric == "ece" else {}
        unit = "" if metric == "ece" else "%"
        settings = {**shared, "network": network, **more}
        pair.append(of.model_copy(update={"metric": metric, "value": value, "unit": unit, "settings": settings}))
    text = printed(record.model_copy(update={"measurements": pair}))
    assert "teacher=t#1" in text
    lines = [line.split() for line in text.splitlines()]
    assert [line[1] for line in lines if line[:1] == ["student"]] == ["70.50"]
    assert [line[1] for line in lines if line[:1] == ["teacher"] and "0.2500" in line] == ["80.25"]
    assert "bins=15" in text
    assert "agreement" in text
    assert "81.25" in text


def test_natural_units_have_four_decimals_and_no_minus_zero(make: Maker) -> None:
    text = printed(make(unit="", value=-0.00001, metric="ece", interval=(-0.5, 0.12345)))
    assert " 0.0000 " in text
    assert "-0.5000 … 0.1235" in text


def test_three_metrics_per_setting_fit(make: Maker) -> None:
    record = make()
    knn = [m for m in record.measurements if m.suite == "knn"]
    extra = [m.model_copy(update={"metric": "mean_per_class", "value": 55.55}) for m in knn if m.metric == "top1"]
    text = printed(record.model_copy(update={"measurements": knn + extra}))
    line = next(line for line in text.splitlines() if "k=20 " in line)
    assert "55.55" in line
    assert len(line) <= 80


def test_different_engines_never_share_a_section(make: Maker) -> None:
    record = make()
    first = record.measurements[0]
    other = first.model_copy(update={"engine": first.engine.model_copy(update={"version": "2"}), "value": 11.11})
    text = printed(record.model_copy(update={"measurements": [*record.measurements, other]}))
    assert text.count("knn/dino@1") == 2
    assert "faiss 2" in text


def test_a_protocol_over_several_sets_says_which_section_is_whose(make: Maker) -> None:
    record = make()
    assert "on fashion-mnist" not in printed(record)
    first = record.measurements[0]
    other = first.model_copy(update={"dataset": "pets", "fingerprint": "sha256:00", "value": 11.11})
    text = printed(record.model_copy(update={"measurements": [*record.measurements, other]}))
    assert "on fashion-mnist" in text
    assert "on pets" in text


def test_text_from_a_record_commands_nothing(make: Maker) -> None:
    evil = "[red]x[/red]\x1b[2J\x07\nsecond [/]"
    record = make(name=evil, metric=evil, protocol=evil, dataset=evil)
    text = printed(record)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 00 s"), (61.4, "1 min 01 s"),
     (3599.9, "1 h 00 min"), (7400, "2 h 03 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
