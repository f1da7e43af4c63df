"""Students beside their teachers: measured pairs in the columns of the published tables, retention, savings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from recordhelp import Maker, card

from bench.record import Measurement, Record
from reports import printed
from reports.board import Board, assemble
from reports.distillation import cifar_name, large_name, one_family, pairs
from reports.pairtables import dcd_tables, improvement_table, students
from reports.site import publish
from reports.tables import KD, survey


def pair(
    make: Maker,
    student: str,
    teacher: str,
    *,
    dataset: str = "cifar100",
    logits: str = "own",
    name: str = "kd-student",
    student_top1: float = 75.25,
    teacher_top1: float = 75.61,
    baseline: float | None = 73.26,
    more: Any = (),
    **changes: Any,
) -> Record:
    """A record as the suites `agreement` and `compression` write it."""
    first: Measurement = make().measurements[0]
    guide = card(f"{teacher}-teacher", architecture=teacher, parameters=2_000_000)
    label = f"{guide.name}#00"
    base = {"dataset": dataset, "fingerprint": f"sha256:{dataset}", "outcomes": None, "headline": False}

    def of(suite: str, metric: str, value: float, headline: bool = False, **settings: Any) -> Measurement:
        common = {"logits": logits, "teacher": label} if suite == "agreement" else {"teacher": label}
        interval = (value - 1, value + 1)
        update = {"suite": suite, "protocol": f"{suite}/x@1", "metric": metric, "value": value, "interval": interval,
                  "settings": {**common, **settings}, **base, "headline": headline}  # fmt: skip
        return first.model_copy(update=update)

    found = [
        of("agreement", "agreement", 84.5, headline=True),
        of("agreement", "kl", 0.21),
        of("agreement", "top1", student_top1, network="student"),
        of("agreement", "top1", teacher_top1, network="teacher"),
        of("agreement", "gain", student_top1 - teacher_top1, over="teacher"),
        of("agreement", "retention", 100 * student_top1 / teacher_top1),
        of("compression", "retention", 98.5, of="knn/dino@1 top1", headline=True),
        of("compression", "latency_speedup", 3.25, batch=1, device="cpu").model_copy(
            update={"split": "synthetic", "unit": "", "dataset": "random 3x32x32"}
        ),
        *more,
    ]
    if baseline is not None:
        found += [
            of("agreement", "top1", baseline, network="baseline"),
            of("agreement", "gain", student_top1 - baseline, over="baseline"),
            of("agreement", "agreement", 80.0, between="baseline and teacher"),
        ]
    return make(
        name, measurements=found, teacher=guide, model=card(name, architecture=student, parameters=500_000), **changes
    )


def table(board: Board, number: str) -> dict[str, Any]:
    return next(t for t in dcd_tables(board) if t["id"] == number)


def cells(found: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {c["key"]: cell for c, cell in zip(found["columns"], row["cells"], strict=True) if cell is not None}


def measured_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [cells(found, row) for row in found["rows"] if row["kind"] == "measured"]


def test_a_measured_pair_falls_into_its_column(make: Maker) -> None:
    board = assemble([pair(make, "wrn_16_2", "wrn_40_2")])
    [row] = measured_rows(table(board, "dcd1"))
    assert set(row) == {"method", "W-40-2->W-16-2 top1"}
    cell = row["W-40-2->W-16-2 top1"]
    assert cell["v"] == "75.25"
    assert cell["i"] == "74.25 to 76.25"
    assert cell["d"].startswith("teacher 75.61; plain student 73.26; ")
    # The printed rows stay as they are beside it.
    printed_row = next(r for r in table(board, "dcd1")["rows"] if r["cells"][0] == "KD")
    assert cells(table(board, "dcd1"), printed_row)["W-40-2->W-16-2 top1"]["v"] == "74.92"


def test_an_unprinted_pair_is_a_column_of_its_group(make: Maker) -> None:
    board = assemble(
        [
            pair(make, "wrn_16_1", "wrn_40_2", name="a", run="run-a"),
            pair(make, "cifar_vgg8", "wrn_40_2", name="b", run="run-b"),
        ]
    )
    found = table(board, "dcd1")
    groups = [(c["group"], c["key"]) for c in found["columns"][1:]]
    assert [g for g, _ in groups] == sorted((g for g, _ in groups), reverse=True), "each group in one piece"
    assert ("Same architecture", "W-40-2->W-16-1 top1") in groups
    assert ("Different architecture", "W-40-2->VGG-8 top1") in groups
    for row in found["rows"]:
        assert len(row["cells"]) == len(found["columns"])


def test_probes_and_other_data_stay_out(make: Maker) -> None:
    board = assemble(
        [
            pair(make, "wrn_16_2", "wrn_40_2", logits="probe", name="a", run="run-a"),
            pair(make, "wrn_16_2", "wrn_40_2", dataset="cifar10", name="b", run="run-b"),
        ]
    )
    assert all(measured_rows(t) == [] for t in dcd_tables(board))
    assert [row for row in survey("kd", "KD", KD, board, None)[0]["rows"] if row["kind"] == "measured"] == []
    # They still stand beside their teachers, and the divergence of probes does not.
    found = students(board)
    assert found is not None
    first, second = measured_rows(found)
    assert "Fidelity KL" not in first
    assert first["Fidelity Agreement"]["d"].startswith("logits of probes")
    assert second["Fidelity KL"]["v"] in ("0.21", "0.2100")


def test_imagenet_transfer_and_detection_have_their_tables(make: Maker) -> None:
    first = make().measurements[0].model_copy(update={"outcomes": None})
    coco = {"suite": "coco", "protocol": "coco/x@1", "dataset": "coco", "fingerprint": "sha256:coco"}
    boxes = [
        first.model_copy(update={**coco, "metric": metric, "value": value})
        for metric, value in (("box_ap", 35.0), ("box_ap50", 55.0), ("box_ap75", 37.0))
    ]  # fmt: skip
    moved = first.model_copy(
        update={"suite": "transfer", "protocol": "transfer/dcd@1", "dataset": "stl10", "value": 71.0,
                "fingerprint": "sha256:stl"}
    )  # fmt: skip
    both = [
        moved.model_copy(update={"settings": {"batch_norm": mode}, "value": value, "headline": mode == "frozen"})
        for mode, value in (("dcd-compat", 71.0), ("frozen", 69.0))
    ]
    boxes += [
        first.model_copy(update={**coco, "protocol": "coco/dcd-fasterrcnn@1", "metric": "box_ap", "value": 36.5}),
        first.model_copy(update={**coco, "protocol": "coco/y@1", "metric": "box_ap", "value": 34.0}),
    ]
    board = assemble(
        [
            pair(make, "resnet18", "resnet34", dataset="imagenet", name="a", run="run-a"),
            pair(make, "resnet18.a1_in1k", "resnet101", dataset="imagenet", name="b", run="run-b", more=boxes),
            pair(make, "wrn_16_2", "wrn_40_2", name="c", run="run-c", more=both),
            pair(make, "wrn_16_2", "wrn_40_2", name="d", run="run-d", more=both[::-1]),
            pair(make, "wrn_16_2", "wrn_40_2", name="e", run="run-e", more=both[1:]),
        ]
    )
    assert [set(row) for row in measured_rows(table(board, "dcd3"))] == [{"method", "ResNet-34->ResNet-18 top1"}]
    [row] = measured_rows(table(board, "dcd4"))
    assert {k: c["v"] for k, c in row.items() if k != "method"} == {
        "ResNet-101->ResNet-18 ap": "36.50", "ResNet-101->ResNet-18 ap50": "55.00",
        "ResNet-101->ResNet-18 ap75": "37.00",
    }  # fmt: skip
    *rows, frozen = measured_rows(table(board, "dcd2"))
    for row in rows:
        assert {k: c["v"] for k, c in row.items() if k != "method"} == {"CIFAR-100->STL-10 top1": "71.00"}
        assert "batch norm dcd-compat" in row["CIFAR-100->STL-10 top1"]["d"], "what the printed numbers are of"
    assert (len(rows), frozen["CIFAR-100->STL-10 top1"]["v"]) == (2, "69.00")
    assert "batch norm frozen" in frozen["CIFAR-100->STL-10 top1"]["d"]


def test_relative_improvement_is_published_from_the_printed_cells() -> None:
    """The paper's 20.31 % and 73.87 %; median and pooled ratio beside them."""
    found = improvement_table()
    rows = {row["cells"][0]: [cell["v"] for cell in row["cells"][1:]] for row in found["rows"]}
    assert rows["DCD (ours)"] == ["20.31", "9.16", "14.24"]
    assert rows["DCD+KD (ours)"] == ["73.87", "71.88", "62.61"]
    assert rows["CRD"][0] == "56.83"
    assert rows["CRD+KD"][0] == "67.12"
    complete = {r["method"] for r in printed.rows("dcd1")} - {"Teacher", "Student", "KD"}
    assert set(rows) <= complete


def test_the_survey_takes_students_of_any_teacher(make: Maker) -> None:
    board = assemble(
        [
            pair(make, "wrn_16_2", "wrn_40_2", name="a", run="run-a"),
            pair(make, "wrn_40_1", "cifar_resnet56", name="b", run="run-b", student_top1=70.0, baseline=None),
        ]
    )
    found, left_out = survey("kd", "KD", KD, board, None)
    rows = {row["cells"][0]: cells(found, row) for row in found["rows"] if row["kind"] == "measured"}
    assert rows["a"]["cifar100_student"]["v"] == "75.25"
    assert rows["a"]["cifar100_teacher"]["v"] == "75.61"
    assert rows["a"]["cifar100_delta"]["v"] == "1.99"
    assert rows["b"]["cifar100_student"]["v"] == "70.00"
    assert "cifar100_delta" not in rows["b"]
    assert left_out == []


def test_a_student_stands_beside_its_teacher(make: Maker, tmp_path: Path) -> None:
    guide = card("wrn_40_2-teacher", architecture="wrn_40_2", parameters=2_000_000)
    linear = make().measurements[-2]
    assert linear.suite == "linear"
    own = linear.model_copy(
        update={"value": 60.0, "fingerprint": "sha256:cifar100", "dataset": "cifar100", "outcomes": None}
    )
    theirs = own.model_copy(update={"value": 80.0})
    runs = tmp_path / "runs"
    pair(make, "wrn_16_2", "wrn_40_2", more=[own], runs=None)
    records = [
        make("wrn_40_2-teacher", model=guide, measurements=[theirs], run="run-t"),
        pair(make, "wrn_16_2", "wrn_40_2", more=[own], run="run-s"),
    ]
    found = students(assemble(records))
    assert found is not None
    [row] = measured_rows(found)
    assert row["teacher"] == "wrn_40_2-teacher"
    assert row["architectures"] == "wrn_40_2 to wrn_16_2 (same)"
    shown = {key: cell["v"] for key, cell in row.items() if isinstance(cell, dict)}
    assert shown["Top-1, % Delta"] == "1.99"
    assert shown["Fidelity Agreement"] == "84.50", "of the student, not of its baseline"
    assert shown["Retention, % of the teacher classifier"] == f"{100 * 75.25 / 75.61:.2f}"
    assert shown["retention knn top1"] == "98.50"
    assert shown["retention linear top1"] == "75.00", "of both networks' own records"
    assert "not paired" in row["retention linear top1"]["d"]
    assert shown["saving latency"] == "3.25"
    assert "device cpu" in row["saving latency"]["d"]
    assert shown["saving parameters"] == "4.00", "from the cards, where nobody measured it"
    assert "saving FLOPs" not in shown
    assert students(assemble([make()])) is None
    for record in records:
        from bench.ledger import Ledger

        Ledger(runs).add(record)
    page = publish(runs, tmp_path / "site").page.read_text()
    data = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert "students" in [t["id"] for t in data["tables"]]
    assert all(
        row["href"].startswith("models/") for t in data["tables"] for row in t["rows"] if row["kind"] == "measured"
    )


def test_repeats_show_the_newest_and_train_alone_is_no_row(make: Maker) -> None:
    older = pair(make, "wrn_16_2", "wrn_40_2", student_top1=70.0, run="run-1")
    newer = pair(make, "wrn_16_2", "wrn_40_2", student_top1=75.25, run="run-2")
    [found] = pairs(assemble([older, newer]))
    cell = found.cell("agreement", "top1", network="student")
    assert cell is not None
    assert (cell.value, cell.runs) == (75.25, ["run-2"])
    train = [m.model_copy(update={"split": "train", "headline": False}) for m in newer.measurements]
    assert len(pairs(assemble([newer.model_copy(update={"measurements": [*newer.measurements, *train]})]))) == 1


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("wrn_40_2", "W-40-2"), ("cifar_resnet56", "R-56"), ("cifar_resnet32x4", "R-32x4"), ("cifar_vgg13", "VGG-13"),
        ("cifar_mobilenetv2_half", "MN-v2"), ("cifar_shufflenetv2", "SN-v2"), ("vit_tiny", "vit_tiny"),
    ],
)  # fmt: skip
def test_names_of_the_tables(architecture: str, name: str) -> None:
    assert cifar_name(architecture) == name
    named = {n for row in printed.rows("dcd1") for n in (row["teacher"], row["student"])}
    assert name in named or architecture == "vit_tiny"


def test_families() -> None:
    assert (large_name("resnet34"), large_name("resnet50.a1_in1k"), large_name("mobilenet_v2")) == (
        "ResNet-34", "ResNet-50", "MobileNet-v2"
    )  # fmt: skip
    for row in printed.rows("dcd1"):
        names = row["teacher"], row["student"]
        assert one_family(*names) == (names in printed.SAME_ARCHITECTURE)
