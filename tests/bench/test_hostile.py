"""Input made to confuse: pipes and devices, names no record can hold, numbers beyond all measure. One sentence each."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bench
from bench import console, text
from bench.data.opening import open_data
from bench.files import at_home, write_atomically
from bench.housekeeping import clean

STRANGE = os.fsdecode(b"cl\xff\x1b[2J")


def folder(root: Path, *classes: str, n: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(root / split / name / f"{i}.png")
    return root


def test_text_that_nothing_can_hold_is_escaped_and_all_other_text_stays() -> None:
    assert text.printable(STRANGE) == r"cl\udcff\x1b[2J"
    assert text.printable("a\u202eb\u2028c\n") == r"a\u202eb\u2028c\n"
    for plain in ("héron, 鷺　(青)", "क्‍ष", "a\u00a0b", "\uf028"):
        assert text.printable(plain) == plain
        assert text.spoken(plain) == plain
    assert text.sentence("a \n b") == "a b"
    assert len(text.sentence("no file " + "x" * 5000)) < 300


def test_a_refusal_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        console.refuse("no file a\n\x1b[31mb " + "y" * 9000)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert r"\x1b[31mb" in said
    assert len(said) < 300


@pytest.mark.parametrize("kind", ["model", "teacher", "features", "record", "gate", "sweep", "image", "tar"])
def test_a_pipe_is_refused_and_not_waited_for(kind: str, tmp_path: Path, features_dir: Path) -> None:
    from bench.api import repeat
    from bench.sweep import read
    from reports.tolerance import load as tolerances

    data = folder(tmp_path / "images", "a", "b")
    pipe = {"features": tmp_path / "train.npz", "image": data / "train/a/9.png", "tar": tmp_path / "train.tar"}.get(
        kind, tmp_path / "pipe"
    )
    os.mkfifo(pipe)
    asked = {
        "model": lambda: bench.load(pipe),
        "teacher": lambda: bench.run(f"features:{features_dir}", ["agreement"], teacher=pipe),
        "features": lambda: bench.load(f"features:{tmp_path}"),
        "record": lambda: repeat(pipe),
        "gate": lambda: tolerances(pipe),
        "sweep": lambda: read(pipe),
        "image": lambda: open_data(f"imagefolder:{data}").train.fingerprint,
        "tar": lambda: open_data(f"webdataset:{pipe}"),
    }
    with pytest.raises(bench.BenchError, match="pipe|regular file"):
        asked[kind]()


def test_an_endless_device_is_not_read() -> None:
    from bench.api import repeat
    from reports.tolerance import load as tolerances

    for ask in (repeat, tolerances, bench.load):
        with pytest.raises(bench.BenchError):
            ask("/dev/zero")  # type: ignore[operator]


def test_names_of_folders_reach_a_record_as_escapes(tmp_path: Path) -> None:
    # Behind a link, so that the SPEC itself can be written.
    real = folder(tmp_path / STRANGE, "a", "b")
    for i in range(2):
        (real / "val" / STRANGE).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(real / "val" / STRANGE / f"{i}.png")
    (tmp_path / "link").symlink_to(real)
    record = bench.run(
        "demo:mobilenetv2@32", ["knn"], f"imagefolder:{tmp_path}/link", settings={"knn.k": 3}, runs=tmp_path / "runs",
        workers=0,
    )  # fmt: skip
    first = record.measurements[0]
    assert first.dataset == r"cl\udcff\x1b[2J"
    assert first.details["without_training_samples"] == {"classes": [r"cl\udcff\x1b[2J"], "test_samples": 2}


def test_the_name_of_a_features_folder_is_escaped(tmp_path: Path, features_dir: Path) -> None:
    shutil.copytree(features_dir, tmp_path / STRANGE)
    (tmp_path / "link").symlink_to(tmp_path / STRANGE)
    record = bench.run(f"features:{tmp_path}/link", ["knn"], settings={"knn.k": 3}, runs=tmp_path / "runs")
    assert record.name == r"cl\udcff\x1b[2J"


@pytest.mark.parametrize("given", [{"arch": 5}, {"weights_key": []}, {"arch": ""}, {"weights_key": "a\nb"}])
def test_arguments_of_load(given: dict[str, object]) -> None:
    with pytest.raises(bench.BenchError, match=next(iter(given))):
        bench.load("missing.pth", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("spec", ["", " ", "a\nb", "\udcff.pth", "x" * 5000])
def test_a_spec_that_load_cannot_take(spec: str) -> None:
    with pytest.raises(bench.BenchError, match="^model (is empty|holds|has)"):
        bench.load(spec)


def test_the_home_of_nobody() -> None:
    assert at_home("~no-such-user-here/x") == Path("~no-such-user-here/x")
    assert at_home("~/x") == Path.home() / "x"
    for ask in (lambda s: bench.load(s), lambda s: open_data(s), lambda s: open_data(f"imagefolder:{s}")):
        with pytest.raises(bench.BenchError, match=r"~no-such-user-here/x"):
            ask("~no-such-user-here/x")


def test_a_folder_where_a_file_is_to_be_written(tmp_path: Path) -> None:
    for place in (Path(), Path("/")):
        with pytest.raises(bench.BenchError, match="is a folder"):
            write_atomically(place, b"")
    with pytest.raises(bench.BenchError, match="is a folder"):
        write_atomically(tmp_path, b"")


def test_a_device_or_a_link_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for place in ("pipe", "link"):
        with pytest.raises(bench.BenchError, match="pipe, a socket or a device"):
            write_atomically(tmp_path / place, b"text")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "page.xml").write_text("old")
    (tmp_path / "to-page").symlink_to("page.xml")
    console.write(tmp_path / "to-page", "new")
    assert (tmp_path / "to-page").is_symlink()
    assert (tmp_path / "page.xml").read_text() == "new"


@pytest.mark.parametrize("size", [float("inf"), float("nan"), -1.0])
def test_a_store_size_that_is_none(size: float) -> None:
    with pytest.raises(bench.BenchError, match="--keep-gb"):
        clean(keep_gb=size)


def test_a_store_size_beyond_all_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench.extract import keep_quota
    from bench.progress import Progress

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE_GB", "1e300")
    keep_quota(Progress(quiet=True))
    assert clean(keep_gb=1e300).removed == []


def test_output_with_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as stream:
        console.emit(f"written to {STRANGE}", stream.fileno())
    assert (tmp_path / "out").read_bytes() == b"written to cl\\udcff\x1b[2J\n"


def test_settings_of_a_gate_without_end(tmp_path: Path) -> None:
    from reports.tolerance import load

    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "long.toml").write_text("#" * (2 << 20))
    for name in ("deep", "long"):
        with pytest.raises(bench.BenchError, match="gate's settings"):
            load(tmp_path / f"{name}.toml")


def test_torchvision_sets_that_cannot_be_read_are_not_proposed() -> None:
    for asked in ("Stereo", "nothing", "Flow", "Kitty"):
        with pytest.raises(bench.BenchError) as refusal:
            open_data(f"torchvision:{asked}")
        assert not any(word in str(refusal.value) for word in ("Stereo,", "CREStereo", "Flow,", "Kitti", "VOC"))


def npz(path: Path, **members: bytes | np.ndarray) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if isinstance(content, np.ndarray):
                stream = io.BytesIO()
                np.save(stream, content)
                archive.writestr(f"{name}.npy", stream.getvalue())
            else:
                archive.writestr(name, content)


X, Y = np.zeros((4, 2), np.float32), np.arange(4)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"x": b"no array", "y": Y}, "'x' in .* is no array"),
        ({"x": np.full((4, 2), 1e300), "y": Y}, "beyond float32"),
        ({"x": X, "y": Y.astype("timedelta64[s]")}, "timedelta64.*not integer"),
        ({"x": X, "y": Y.astype(bool)}, "bool, not integer"),
    ],
)
def test_members_of_a_features_file(tmp_path: Path, members: dict[str, bytes | np.ndarray], said: str) -> None:
    npz(tmp_path / "train.npz", **members)
    npz(tmp_path / "test.npz", x=X, y=Y)
    with pytest.raises(bench.BenchError, match=said):
        bench.load(f"features:{tmp_path}")


def test_features_of_nowhere(tmp_path: Path) -> None:
    with pytest.raises(bench.BenchError, match="features needs a path"):
        bench.load("features:")
    (tmp_path / "train.npz").mkdir()
    with pytest.raises(bench.BenchError, match=r"train\.npz is a folder"):
        bench.load(f"features:{tmp_path}")
