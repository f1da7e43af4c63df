"""Small GLUE tasks written as its archive has them, and as Hugging Face stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Row = tuple[str, str | None, Any]
_PAIRS = [
    ("the cat sat", "a cat sat"),
    ("the dog ran", "who ran"),
    ("red bird", "the bird is red"),
    ("a tree", "a mat"),
]
_ENTAILED = ("entailment", "not_entailment")
SINGLE = ("the cat sat on the mat .", "cat the the mat sat on", 'a "red" bird flew', "flew bird red a")
NAMES = {"mnli": ("entailment", "neutral", "contradiction"), "qnli": _ENTAILED, "rte": _ENTAILED}
ROWS: dict[str, list[Row]] = {
    **{task: [(text, None, (i + 1) % 2) for i, text in enumerate(SINGLE * 3)] for task in ("cola", "sst2")},
    **{task: [(*pair, i % 2) for i, pair in enumerate(_PAIRS * 3)] for task in ("mrpc", "qqp", "qnli", "rte", "wnli")},
    "mnli": [(*pair, i % 3) for i, pair in enumerate(_PAIRS * 3)],
    "stsb": [(*pair, (5.0, 3.25, 1.5, 0.0)[i % 4]) for i, pair in enumerate(_PAIRS * 3)],
}
FOLDERS = {"cola": "CoLA", "sst2": "SST-2", "mrpc": "MRPC", "stsb": "STS-B", "qqp": "QQP", "mnli": "MNLI",
           "qnli": "QNLI", "rte": "RTE", "wnli": "WNLI"}  # fmt: skip
HEADS = {
    "sst2": "sentence|label",
    "mrpc": "Quality|#1 ID|#2 ID|#1 String|#2 String",
    "qqp": "id|qid1|qid2|question1|question2|is_duplicate",
    "stsb": "index|genre|filename|year|old_index|source1|source2|sentence1|sentence2|score",
    "qnli": "index|question|sentence|label",
    "rte": "index|sentence1|sentence2|label",
    "wnli": "index|sentence1|sentence2|label",
    "mnli": "index|promptID|pairID|genre|sentence1_binary_parse|sentence2_binary_parse|sentence1_parse|sentence2_parse|"
    "sentence1|sentence2|label1|gold_label",
}


def line(task: str, number: int, row: Row) -> list[str]:
    """One line of the archive's file."""
    first, second, label = row[0], str(row[1]), str(row[2])
    if task in NAMES:
        label = NAMES[task][row[2]]
    return {
        "cola": ["gj04", label, "" if label == "1" else "*", first],
        "sst2": [first, label],
        "mrpc": [label, "70", "71", first, second],
        "qqp": [str(number), "1", "2", first, second, label],
        "stsb": [str(number), "genre", "file", "2012", "1", "none", "none", first, second, label],
        "mnli": [
            str(number),
            "1",
            "1e",
            "fiction",
            "( x )",
            "( y )",
            "(ROOT x)",
            "(ROOT y)",
            first,
            second,
            "n",
            label,
        ],
    }.get(task, [str(number), first, second, label])


def write_archive(root: Path, task: str) -> None:
    """``TASK/train.tsv`` and its development files."""
    folder = root / FOLDERS[task]
    folder.mkdir(parents=True, exist_ok=True)
    head = HEADS.get(task)
    lines = [] if head is None else [head.replace("|", "\t")]
    rows = ["\t".join(line(task, number, row)) for number, row in enumerate(ROWS[task])]
    for split, part in splits(task).items():
        (folder / f"{split}.tsv").write_text("\n".join([*lines, *rows[part]]) + "\n", encoding="utf-8")


def write_parquet(root: Path, task: str) -> None:
    """``task/train-00000-of-00001.parquet`` and its validation files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = {"mnli": ("premise", "hypothesis"), "qqp": ("question1", "question2"), "qnli": ("question", "sentence")}
    first, second = names.get(task, ("sentence1", "sentence2"))
    folder = root / task
    folder.mkdir(parents=True)
    for split, part in splits(task).items():
        rows = [
            ({"sentence": a} if b is None else {first: a, second: b}) | {"label": label, "idx": number}
            for number, (a, b, label) in enumerate(ROWS[task][part])
        ]
        called = split.replace("dev", "validation")
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{called}-00000-of-00001.parquet")


def splits(task: str) -> dict[str, slice]:
    """Development sets are the first rows of train: enough to read, and a network can learn them."""
    if task == "mnli":
        return {"train": slice(None), "dev_matched": slice(0, 6), "dev_mismatched": slice(3, 10)}
    return {"train": slice(None), "dev": slice(0, 8)}
