"""SQuAD: the official metric by its rules, windows over documents, valid spans, and a network that learns to point."""

from __future__ import annotations

import json
import math
import re
import string

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra [text] is not installed")

from texthelp import encoder

import bench
from bench.data.opening import open_data
from bench.errors import BenchError
from bench.modality import modality_of
from suites import squad_metrics
from suites.reading_comprehension import best_spans, marked, most_context

CASES = [
    # (prediction, references, exact match, F1), by the rules of evaluate-v1.1.
    ("Denver Broncos", ["Denver Broncos", "the Broncos"], 1, 1),
    ("the denver broncos!", ["Denver Broncos"], 1, 1),
    ("Broncos", ["Denver Broncos"], 0, 2 / 3),
    ("a cat and an owl", ["Cat and owl."], 1, 1),
    ("", ["Paris"], 0, 0),
    ("the", ["a"], 1, 0),  # nothing is left of both: equal, and no word in common
    ("red red cat", ["red cat cat"], 0, 2 * (2 / 3) * (2 / 3) / (4 / 3)),
    ("U.S.", ["us"], 1, 1),
    ("co-operate", ["co operate"], 0, 0),  # punctuation goes without leaving a space
    ("theatre", ["atre"], 0, 0),  # articles are words, not letters
    ("1,000", ["1000"], 1, 1),
    ("café", ["cafe"], 0, 0),
    ("two\u00a0words", ["two words"], 1, 1),
]


@pytest.mark.parametrize(("prediction", "references", "em", "f1"), CASES)
def test_official_rules(prediction, references, em, f1):
    assert squad_metrics.best(squad_metrics.exact_match, prediction, references) == em
    assert squad_metrics.best(squad_metrics.f1, prediction, references) == pytest.approx(f1)
    assert (brute_em(prediction, references), brute_f1(prediction, references)) == (em, pytest.approx(f1))


def brute_words(text):
    """The rules once more, word by word."""
    bare = text.lower()
    for mark in string.punctuation:
        bare = bare.replace(mark, "")
    return [word for word in re.split(r"\s+", bare) if word and word not in ("a", "an", "the")]


def brute_em(prediction, references):
    return int(any(brute_words(prediction) == brute_words(one) for one in references))


def brute_f1(prediction, references):
    scores = []
    for reference in references:
        left, wanted = brute_words(prediction), brute_words(reference)
        given, hits = len(left), 0
        for word in wanted:
            if word in left:
                left.remove(word)
                hits += 1
        scores.append(0 if not hits else 2 * hits / (given + len(wanted)))
    return max(scores)


def test_metrics_against_the_rules_on_many_answers():
    rng = np.random.default_rng(0)
    words = ["The", "a", "an", "cat,", "cat", "Dog's", "dogs", "--", "1.5", "15", "red"]
    for _ in range(300):
        prediction, *references = (" ".join(rng.choice(words, rng.integers(0, 5))) for _ in range(4))
        assert squad_metrics.best(squad_metrics.f1, prediction, references) == pytest.approx(
            brute_f1(prediction, references)
        )
        assert squad_metrics.best(squad_metrics.exact_match, prediction, references) == brute_em(prediction, references)


def test_windows_cover_the_document(tmp_path):
    backbone = bench.load(str(encoder(tmp_path / "e")))
    context = " ".join(["the red cat sat under a tree"] * 6)
    whole = backbone.windows("who sat ?", context, longest=40, stride=8, query=64)
    windows = backbone.windows("who sat ?", context, longest=16, stride=4, query=64)
    assert all(len(one.ids) <= 16 for one in windows)
    spans = [[at for at in one.offsets if at is not None] for one in windows]
    # 16 less [CLS], three words of the question and two [SEP] leave 10; the next begins 4 further on.
    assert [len(one) for one in spans[:-1]] == [10] * (len(spans) - 1)
    words = [match.span() for match in re.finditer(r"\S+", context)]
    for number, one in enumerate(spans):
        assert one == words[4 * number : 4 * number + len(one)]
    assert spans[-1][-1] == words[-1]
    assert [at for at in whole[0].offsets if at is not None] == words[: len([a for a in whole[0].offsets if a])]
    # A long question is cut, so that documents keep their room.
    cut = backbone.windows("who " * 30, context, longest=16, stride=4, query=5)
    assert cut[0].ids[1:6] == [cut[0].ids[1]] * 5
    assert sum(at is not None for at in cut[0].offsets) == 16 - 5 - 3
    with pytest.raises(BenchError, match="leave no room"):
        backbone.windows("who " * 30, context, longest=8, stride=4, query=5)


def test_the_answers_tokens():
    offsets = [None, None, (0, 3), (4, 7), (8, 9), None]
    assert marked(offsets, 4, 7) == (3, 3)
    assert marked(offsets, 4, 9) == (3, 4)
    assert marked(offsets, 5, 8) == (3, 3)  # inside a token: the whole of it
    assert marked(offsets, 4, 12) == (0, 0)  # ends beyond the window
    assert marked([None, (4, 7)], 0, 7) == (0, 0)  # begins before it


def test_most_context():
    one, two = [(i, i + 1) for i in range(10)], [(i, i + 1) for i in range(4, 14)]
    found = most_context([[None, *one], [None, *two]])
    assert [found[i, i + 1] for i in range(14)] == [0] * 7 + [1] * 7


def test_best_spans_by_brute_force():
    context = "abcdefghij"
    windows = [[None, *[(i, i + 1) for i in range(6)]], [None, *[(i, i + 1) for i in range(4, 10)]]]
    rng = np.random.default_rng(3)
    roomy = most_context(windows)
    for _ in range(20):
        scores = [rng.normal(size=(7, 2)) for _ in windows]
        found = best_spans(context, windows, scores, 50, 3)
        every = {}
        for number, (offsets, score) in enumerate(zip(windows, scores, strict=True)):
            for i in range(1, 7):
                for j in range(i, min(i + 3, 7)):
                    if roomy[offsets[i]] == number:
                        text = context[offsets[i][0] : offsets[j][1]]
                        every[text] = max(every.get(text, -math.inf), score[i, 0] + score[j, 1])
        wanted = sorted(every.items(), key=lambda item: -item[1])
        assert [one["text"] for one in found] == [text for text, _ in wanted]
        assert found[0]["start_logit"] + found[0]["end_logit"] == pytest.approx(wanted[0][1])
        assert sum(one["probability"] for one in found) == pytest.approx(1)
    assert best_spans(context, windows, scores, 1, 3)[0].keys() == {"text", "probability", "start_logit", "end_logit"}
    with pytest.raises(BenchError, match="not finite"):
        best_spans(context, windows, [scores[0] * math.nan, scores[1]], 5, 3)


COLOURS, THINGS = ("red", "green", "blue"), ("cat", "dog", "bird", "house", "tree", "river")


def squad(folder, form="json"):
    """Documents with a colour somewhere among other words; the question asks for it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 96), ("dev", 24)):
        rows = []
        for number in range(n):
            words = list(rng.choice(THINGS, rng.integers(6, 14)))
            place, colour = int(rng.integers(len(words))), str(rng.choice(COLOURS))
            words[place] = colour
            context, start = " ".join(words), len(" ".join(words[:place])) + (place > 0)
            answers = [{"text": colour, "answer_start": start}] * (1 if split == "train" else 3)
            rows.append((f"{split}{number}", "what is it ?", context, answers))
        if form == "json":
            paragraphs = [
                {"context": c, "qas": [{"id": name, "question": q, "answers": answers}]} for name, q, c, answers in rows
            ]
            document = {"version": "1.1", "data": [{"title": "things", "paragraphs": paragraphs}]}
            (folder / f"{split}-v1.1.json").write_text(json.dumps(document))
        else:
            import pyarrow as pa
            import pyarrow.parquet as pq

            table = [
                {"id": name, "question": q, "context": c, "title": "", "answers": {
                    "text": [a["text"] for a in answers], "answer_start": [a["answer_start"] for a in answers]}}
                for name, q, c, answers in rows
            ]  # fmt: skip
            called = "validation" if split == "dev" else split
            pq.write_table(pa.Table.from_pylist(table), folder / f"{called}-00000-of-00001.parquet")
    return folder


def test_a_network_learns_to_point(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folder = squad(tmp_path / "squad")
    settings = {"squad.epochs": 6, "squad.batch": 16, "squad.lr": 0.004, "squad.dropout": 0.0, "squad.length": 14,
                "squad.stride": 3}  # fmt: skip
    model = str(encoder(tmp_path / "e", hidden_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    record = bench.run(
        model=model, suites=["squad"], data=f"squad:{folder}", settings=settings, workers=0, runs=tmp_path / "runs"
    )
    found = {m.metric: m for m in record.measurements}
    # Windows of 7 words, 3 apart: most documents have several, and some of them do not hold the answer.
    assert found["em"].value >= 90
    assert found["f1"].value >= found["em"].value
    assert found["f1"].headline
    assert found["f1"].interval[0] <= found["f1"].value <= found["f1"].interval[1]
    artifacts = tmp_path / "runs" / "artifacts" / record.run
    (stored,) = artifacts.glob("*-predictions.json")
    predictions = json.loads(stored.read_text())
    questions = open_data(f"squad:{folder}").test
    assert set(predictions) == set(questions.ids)
    judged = [
        brute_f1(predictions[one.id], one.answers) for one in (questions.question(i) for i in range(len(questions)))
    ]
    assert found["f1"].value == pytest.approx(100 * np.mean(judged))
    (n_best,) = artifacts.glob("*nbest_predictions.json")
    assert all(lists[0]["text"] == predictions[name] for name, lists in json.loads(n_best.read_text()).items())
    assert found["f1"].details["windows"]["train"] > 120
    assert 0 < found["f1"].details["windows"]["train_without_the_answer"] < 96


def test_forms_of_the_set(tmp_path, monkeypatch):
    json_form, stored = (open_data(f"squad:{squad(tmp_path / form, form)}") for form in ("json", "parquet"))
    assert json_form.train.fingerprint == stored.train.fingerprint
    assert modality_of(json_form.test) == "text"
    assert json_form.test.question(0).answers == (json_form.test.question(0).answers[0],) * 3
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(BenchError, match="'squad' is not here"):
        open_data("squad")
    (tmp_path / "json").rename(tmp_path / "squad")
    assert open_data("squad").train.fingerprint == stored.train.fingerprint
    squad(tmp_path / "hub" / "plain_text", "parquet")
    assert open_data(f"squad:{tmp_path / 'hub'}").train.fingerprint == stored.train.fingerprint
    path = tmp_path / "squad" / "dev-v1.1.json"
    good = path.read_text()
    for spoiled, sentence in (
        (good.replace('"answer_start": ', '"answer_start": 1'), "is not at"),
        (good.replace('"answers": [', '"is_impossible": true, "answers": ['), "SQuAD 2.0"),
        (good.replace('"qas"', '"questions"'), "not in SQuAD's form"),
        (good[:-9], "no readable JSON"),
        ('{"data": []}', "holds no question"),
    ):
        path.write_text(spoiled)
        with pytest.raises(BenchError, match=sentence):
            open_data("squad")
    path.unlink()
    with pytest.raises(BenchError, match=r"has no dev-v1.1.json"):
        open_data("squad")


def test_refusals(tmp_path, monkeypatch):
    model = str(encoder(tmp_path / "e"))
    with pytest.raises(BenchError, match="suite 'squad' fine-tunes a text encoder"):
        bench.run(model="demo:trio-kd", suites=["squad"], data="demo")
    folder = tmp_path / "t"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"{split}.tsv").write_text("text\tlabel\ngood\t1\nbad\t0\n")
    with pytest.raises(BenchError, match="reads questions with answers"):
        bench.run(model=model, suites=["squad"], data=f"text:{folder}")
    with pytest.raises(BenchError, match="present label|several labels"):
        bench.run(model=model, suites=["knn"], data=f"squad:{squad(tmp_path / 'squad')}", workers=0)
