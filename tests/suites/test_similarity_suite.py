"""The similarity and logits suites end to end on small stored features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bench
from bench.errors import BenchError
from bench.ledger import Ledger
from bench.record import Record
from suites.logit_structure import class_difference, correlation_difference
from suites.similarity import chosen_rows, jackknife
from suites.similarity_measures import get, measures

N, CLASSES = 120, 3
LATENT = np.random.default_rng(1).standard_normal((N, 5)) + 3 * np.eye(5)[np.arange(N) % CLASSES]


def network(folder: Path, name: str, noise: float, width: int) -> str:
    own = np.random.default_rng([width, *name.encode()])
    x = (LATENT + noise * own.standard_normal((N, 5))) @ own.standard_normal((5, width))
    logits = x @ own.standard_normal((width, CLASSES))
    (folder / name).mkdir()
    for split in ("train", "test"):
        np.savez(
            folder / name / f"{split}.npz", x=x.astype(np.float32), y=np.arange(N) % CLASSES,
            logits=logits.astype(np.float32),
        )  # fmt: skip
    return f"features:{folder / name}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("pair")
    return network(folder, "student", 1.0, 8), network(folder, "teacher", 0.3, 12)


def run(pair: tuple[str, str], suite: str, runs: Path | None = None, **settings: Any) -> Record:
    given = {f"{suite}.{key}": value for key, value in settings.items()}
    return bench.run(pair[0], [suite], teacher=pair[1], settings=given, runs=runs)


def read(spec: str, name: str = "x") -> np.ndarray:
    with np.load(Path(spec.partition(":")[2]) / "test.npz") as file:
        return file[name]


def test_every_measure_is_its_function_teacher_first(pair: tuple[str, str]) -> None:
    record = run(pair, "similarity", measures=list(measures()), restarts=2, groups=5, angle_samples=40)
    assert [m.metric for m in record.measurements] == list(measures())
    y, x = (read(spec) for spec in pair)
    for m in record.measurements:
        measure = get(m.metric)
        options = {k: v for k, v in m.settings.items() if k != "teacher"}
        assert set(options) == set(measure.options) - {"seed"}
        if m.metric.startswith("cluster"):
            assert options["k"] == CLASSES
        assert m.value == measure.compute(x, y, **options).value
        assert (m.unit, m.n, m.higher_is_better) == ("", N, measure.higher_is_better)
        if m.interval is None:
            assert m.interval_note
        else:
            assert measure.bounds[0] <= m.interval[0] <= m.value <= m.interval[1] <= measure.bounds[1]
    assert [m.metric for m in record.measurements if m.headline] == ["cka"]
    assert record.measurements[0].details["widths"] == {"teacher": 12, "student": 8}


def test_a_network_against_itself_gives_the_identity(pair: tuple[str, str]) -> None:
    names = [name for name in measures() if not name.startswith(("cluster", "rkd_angle"))]
    for m in run((pair[0], pair[0]), "similarity", measures=names, groups=5).measurements:
        assert m.value == get(m.metric).identity


def test_measures_of_all_pairs_read_a_drawn_part(pair: tuple[str, str]) -> None:
    record = run(pair, "similarity", measures=["cka", "rsa"], samples=50)
    found = {m.metric: m for m in record.measurements}
    assert (found["cka"].n, found["rsa"].n) == (N, 50)
    rows = chosen_rows(N, 50, 0)
    assert len(np.unique(rows)) == 50
    y, x = (read(spec) for spec in pair)
    assert found["rsa"].value == get("rsa").compute(x[rows], y[rows]).value
    assert "+" in found["rsa"].protocol


def test_a_measure_that_these_features_do_not_allow_is_left_out(
    tmp_path: Path, pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    wide = network(tmp_path, "wide", 0.3, 130)
    # Noise makes the wide features' rank full: CCA then has fewer samples than features.
    with np.load(tmp_path / "wide" / "test.npz") as file:
        x = file["x"] + np.random.default_rng(0).standard_normal(file["x"].shape).astype(np.float32)
        np.savez(tmp_path / "wide" / "test.npz", x=x, y=file["y"], logits=file["logits"])
    record = run((pair[0], wide), "similarity", measures=["cka", "cca"])
    assert [m.metric for m in record.measurements] == ["cka"]
    assert "biased upwards" in record.measurements[0].details["caution"]
    assert "cca is left out: canonical correlations need more samples" in capsys.readouterr().err


def test_jackknife_is_the_t_interval_of_a_mean() -> None:
    """With groups of one sample the jackknife of a mean is its textbook standard error."""
    from scipy.stats import t

    x = np.random.default_rng(0).standard_normal(40)
    half = jackknife(lambda rows: float(x[rows].mean()), 40, 20, 0)
    assert half is not None
    pairs = np.array([part.mean() for part in np.split(x[np.random.default_rng(0).permutation(40)], 20)])
    assert half == pytest.approx(t.ppf(0.975, 19) * pairs.std(ddof=1) / np.sqrt(20))
    assert jackknife(lambda rows: 0.0, 30, 20, 0) is None


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"measures": ["ckaa"]}, "unknown similarity measure"),
        ({"split": "val"}, "train or test"),
        ({"samples": 3}, "samples is a number of at least 10"),
        ({"groups": 2}, "at least 5"),
        ({"replicates": 1}, "at least 100"),
    ],
)
def test_options_that_make_no_sense(pair: tuple[str, str], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        run(pair, "similarity", **settings)


def test_logits_are_the_functions_and_their_matrices_are_kept(pair: tuple[str, str], tmp_path: Path) -> None:
    record = run(pair, "logits", tmp_path / "runs", replicates=100)
    student, teacher = (read(spec, "logits") for spec in pair)
    expected = {
        "class_logits": class_difference(teacher, student, np.arange(N) % CLASSES),
        "logit_correlation": correlation_difference(teacher, student),
    }
    assert len(record.measurements) == 6
    for m in record.measurements:
        kind, _, summary = m.metric.rpartition("_")
        assert m.value == pytest.approx(getattr(expected[kind], summary), abs=1e-6)
        assert m.interval is not None
        assert m.interval[0] <= m.value <= m.interval[1]
        assert m.settings["logits"] == "own"
        table = Ledger(tmp_path / "runs").outcomes(record, m.outcomes)
        np.testing.assert_allclose(table["difference"], expected[kind].matrix, atol=1e-6)
        off = ~np.eye(CLASSES, dtype=bool)
        np.testing.assert_allclose(
            np.abs(table["student"] - table["teacher"])[off], table["difference"][off], atol=1e-6
        )
    assert [m.metric for m in record.measurements if m.headline] == ["class_logits_mean"]


def test_logits_of_a_network_against_itself_differ_by_zero(pair: tuple[str, str]) -> None:
    for m in run((pair[1], pair[1]), "logits", replicates=100).measurements:
        assert (m.value, m.interval) == (0.0, (0.0, 0.0))
