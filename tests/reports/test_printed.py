"""The printed tables and their audit."""

from __future__ import annotations

import csv
import hashlib
import statistics
from importlib.resources import files

import pytest

from reports import printed
from reports.board import Board
from reports.comparable import Column
from reports.pairtables import dcd_tables
from reports.tables import KD, SSL, survey, survey_key

DIGESTS = {
    "audit.csv": "0ea100c446c69cb456b9977197b3153f88e9097b2878ff0db4bc806efd34c89d",
    "dcd_table1_cifar100.csv": "de1ce1ee53608313166f93a1e8cfe0d5a5c513dc2a9762627e6da97f6e73f6fa",
    "dcd_table2_transfer.csv": "cef4d93c80770a969c0fdb89036d0075ba6ae418149da953736a94660bff1147",
    "dcd_table3_imagenet.csv": "84dacc8665036ce7c1f2d73b1dccebc40385093482f8ef25d8415641ae5cb362",
    "dcd_table4_coco.csv": "035f1f98039542792f19839ba21babf2e8e2b7b61c14be341a943f9fb4a8deac",
    "kd.csv": "5374f6b7c05299090f44acbc351b7f1bbf4d0ab44a7019836df61ed23fc77e1b",
    "ssl.csv": "66b54fb6b6c2f3356c503895f3169d2d05c6044213baf608a0055a053d77a3b9",
}
"""SHA-256 of the tables as they were handed over: a number that is mended belongs into the audit."""


def tables() -> dict[str, dict]:  # type: ignore[type-arg]
    surveys = [survey(key, key, columns, Board(), None)[0] for key, columns in (("ssl", SSL), ("kd", KD))]
    return {table["id"]: table for table in [*surveys, *dcd_tables()]}


@pytest.mark.parametrize("table", sorted(printed.FILES))
def test_every_printed_number_has_its_cell(table: str) -> None:
    with files("reports").joinpath("published", printed.FILES[table]).open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    text = {"method", "year", "family", "backbone", "loss", "data", "teacher", "student", "source", "target"}
    wanted = sorted(value for row in rows for key, value in row.items() if key not in text and value)
    cells = [cell for row in tables()[table]["rows"] for cell in row["cells"] if isinstance(cell, dict)]
    assert sorted(cell["v"] for cell in cells if cell["v"]) == wanted
    for cell in cells:
        if cell["v"]:
            assert cell["n"] == float(cell["v"].rstrip("*"))
            assert bool(cell.get("z")) == cell["v"].endswith("*")


def test_every_audit_entry_is_reached_by_a_cell() -> None:
    reached = {
        cell["a"]
        for table in tables().values()
        for row in table["rows"]
        for cell in row["cells"]
        if isinstance(cell, dict) and "a" in cell
    }
    assert reached == set(range(len(printed.audits())))
    assert len(printed.audits()) == 61


def test_audited_cells_hold_the_printed_value() -> None:
    """An audit row that speaks of another value than the table prints would correct the wrong cell."""
    for table in tables().values():
        for row in table["rows"]:
            for cell in row["cells"]:
                if isinstance(cell, dict) and "a" in cell:
                    audit = printed.audits()[cell["a"]]
                    assert audit.column == "different architecture" or cell["v"] == audit.survey_value, audit


def test_only_what_was_read_corrects() -> None:
    for audit in printed.audits():
        if audit.standing == "corrected":
            assert audit.basis == "verified"
            assert audit.severity in {"A", "B", "C"}
        if audit.severity.endswith("?") or audit.basis != "verified":
            assert audit.standing == "not confirmed"
    standings = {(a.method, a.column): a.standing for a in printed.audits()}
    assert standings["SimCLR", "in1k_knn"] == "corrected"
    assert standings["SimCLR", "in1k_lp"] == "variant"
    assert standings["iBOT", "coco_box"] == "noted"
    assert standings["DINOv2", "coco_box"] == "not confirmed"


def test_the_audit_of_an_architecture_means_its_pairs() -> None:
    different = {(r["teacher"], r["student"]) for r in printed.rows("dcd1")} - printed.SAME_ARCHITECTURE
    assert len(different) == 6
    assert all(printed.audit_of("dcd1", "FSP", f"{t}->{s}") is not None for t, s in different)
    assert printed.audit_of("dcd1", "FSP", "W-40-2->W-16-2") is None


@pytest.mark.parametrize(("method", "gain"), [("DCD (ours)", 20.31), ("DCD+KD (ours)", 73.87)])
def test_mean_relative_improvement_over_kd(method: str, gain: float) -> None:
    """The paper prints both; they come out of its own table."""
    value = {(r["method"], r["teacher"], r["student"]): printed.value_of(r["top1"]) for r in printed.rows("dcd1")}
    pairs = {(t, s) for _, t, s in value}
    relative = [
        (value[method, *p] - value["KD", *p]) / (value["KD", *p] - value["Student", *p]) for p in pairs
    ]  # fmt: skip
    assert 100 * statistics.fmean(relative) == pytest.approx(gain, abs=0.005)


def test_the_tables_are_those_that_were_handed_over() -> None:
    folder = files("reports").joinpath("published")
    for name, digest in DIGESTS.items():
        assert hashlib.sha256(folder.joinpath(name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize(
    ("protocol", "metric", "key"),
    [
        ("ade20k/upernet-160k@2", "miou", "ade_miou"), ("ade20k/own-upernet-160k@2+iterations=9", "miou", "ade_miou"),
        ("ade20k/linear@2", "miou", "ade_miou_frozen"), ("ade20k/ibot-linear@1", "miou", "ade_miou_frozen"),
        ("coco/maskrcnn-fpn-1x@1", "box_ap", "coco_box"), ("coco/vitdet-100ep@1", "mask_ap", "coco_mask"),
        ("coco/moco-c4-2x@1", "box_ap", None), ("coco/vitdet-cascade-100ep@1", "box_ap", None),
        ("coco/dcd-fasterrcnn@1", "box_ap", None), ("coco/frozen-fpn@1", "mask_ap", None),
        ("finetune/mae-b@1", "top1", "in1k_ft"), ("knn/lightly@1", "top1", None), ("knn/dino@1", "top1", "in1k_knn"),
    ],
)  # fmt: skip
def test_what_does_not_compare_with_a_survey_column_is_not_in_it(protocol: str, metric: str, key: str | None) -> None:
    suite = protocol.partition("/")[0]
    data = {"ade20k": "ade20k", "coco": "coco"}.get(suite, "imagenet")
    said = dict.fromkeys(Column._fields, "") | {"suite": suite, "protocol": protocol, "metric": metric, "dataset": data}
    assert survey_key(Column(**said)) == key
    assert key is None or key in {name for name, *_ in SSL}


def test_the_two_kinds_of_linear_probe_are_two_columns() -> None:
    assert [title for key, _, title in SSL if key.startswith("in1k_lp")] == ["LP, paper recipe", "LP, uniform"]
    ssl = tables()["ssl"]
    keys = [column["key"] for column in ssl["columns"]]
    assert any(row["cells"][keys.index("in1k_lp")] for row in ssl["rows"])
    assert not any(row["cells"][keys.index("in1k_lp_uniform")] for row in ssl["rows"]), "nobody printed those"
