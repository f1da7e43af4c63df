"""The restricted unpickler: stand-ins are inert, extents are checked, bombs cost little, and no file escapes it."""

import io
import json
import pickle
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.reader import read
from adapters.unpickling import Opaque, loads
from bench.errors import BenchError


class CfgNode(dict):
    """As yacs has it: a dictionary with attributes."""


class Slotted:
    __slots__ = ("a",)


def test_plain_values_come_back_equal():
    value = {"a": [1, 2.5, None, True, "x", b"y", (1, (2,))], "s": {1, 2}, "o": OrderedDict(b=1), 3: 10**30}
    for protocol in range(6):
        found, replaced = loads(pickle.dumps(value, protocol))
        assert found == value, protocol
        assert replaced == []


def test_numpy_values_come_back_equal():
    value = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.float32(1.5), "c": np.arange(3, dtype=">i2")}
    for protocol in (2, 3, 4):
        found, replaced = loads(pickle.dumps(value, protocol))
        assert replaced == []
        assert all(np.array_equal(found[name], one) for name, one in value.items())


@pytest.mark.parametrize("protocol", range(6))
def test_unknown_classes_are_stand_ins_with_plain_state(protocol):
    node = CfgNode(lr=1)
    node.frozen = True
    slotted = Slotted() if protocol >= 2 else Path("x")
    found, replaced = loads(pickle.dumps([node, slotted, node], protocol))
    assert isinstance(found[0], Opaque)
    assert found[0] is found[2]
    assert found[0].state == {"frozen": True}
    if protocol >= 2:
        assert found[0].entries == [("lr", 1)]
    assert any(name.endswith(".CfgNode") for name in replaced)


def archive(path, table, storage=b"\0" * 16):
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("x/data.pkl", table)
        out.writestr("x/data/0", storage)
    return path


def rebuilt(size, stride, offset=0, count=4):
    """A tensor's pickle with any extents, written by hand."""
    out = io.BytesIO()
    writer = pickle._Pickler(out, 2)
    out.write(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n")
    for value in ("0", "cpu", count):
        writer.save(value)
    out.write(b"tQ")
    for value in (offset, size, stride, False, {}):
        writer.memo.clear()
        writer.save(value)
    out.write(b"tR.")
    return out.getvalue()


def test_a_tensor_written_by_hand_is_read(tmp_path):
    data = np.arange(4, dtype="<f4").tobytes()
    assert read(archive(tmp_path / "a", rebuilt((2, 2), (1, 2)), data)).content.tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    "table",
    [
        rebuilt((1 << 40,), (1,)),
        rebuilt((1 << 40,), (0,)),
        rebuilt((1 << 62, 1 << 62), (0, 0)),
        rebuilt((2, 2), (3, 1)),
        rebuilt((2,), (-1,)),
        rebuilt((2,), (1,), offset=3),
        rebuilt((2,), (1,), offset=-1),
        rebuilt((2, 2), (1,)),
        rebuilt((4,), (1,), count=1 << 50),
        rebuilt((1.5,), (1,)),
    ],
)
def test_extents_beyond_the_storage_are_refused(tmp_path, table):
    with pytest.raises(BenchError, match="again"):
        read(archive(tmp_path / "a", table))


def nested_pairs(depth, key):
    # t = (); t = (t, t) ... each level two opcodes and a memo entry: the tree has 2^depth leaves
    body = b")" + b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(depth))
    return b"\x80\x02}" + (body + b"K\x01s." if key else b"K\x01" + body + b"s.")


@pytest.mark.parametrize(
    "table",
    [
        nested_pairs(100, key=True),
        nested_pairs(100, key=False),
        b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        b"\x80\x02" + b")" + b"\x85" * 300_000 + b".",
        b"\x80\x02]q\x000h\x00h\x00a.",
        b"\x80\x05\x96" + (1 << 40).to_bytes(8, "little") + b".",
        b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".",
        b"\x80\x02" + b"N0" * 3_000_000 + b"N.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02cbuiltins\nset\n(]](K\x01ee\x85R.",
    ],
)
def test_bombs_are_refused_in_seconds(tmp_path, table):
    begun = time.monotonic()
    with pytest.raises(BenchError):
        read(archive(tmp_path / "a", table))
    assert time.monotonic() - begun < 20


def test_a_frame_or_a_memo_index_of_gigabytes_costs_nothing():
    assert loads(b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"N.")[0] is None
    assert loads(b"\x80\x02Nr\xff\xff\xff\x7f.")[0] is None


@pytest.mark.parametrize("name", ["os\nsystem", "posix\nsystem", "subprocess\nPopen", "builtins\neval", "os\npopen"])
def test_commands_are_refused_by_name(tmp_path, name):
    canary = tmp_path / "canary"
    table = f"c{name}\n(Vtouch {canary}\ntR.".encode()
    with pytest.raises(BenchError, match="not executed"):
        read(archive(tmp_path / "a", table))
    assert not canary.exists()


@pytest.mark.parametrize(
    "table",
    [
        "cbuiltins\ngetattr\n(cfunctools\npartial\nV__globals__\ntR(V{0}\ntR.",
        "(V{0}\nipathlib\nPath\n.",
        "cpathlib\nPath.touch\n(cpathlib\nPath\n(V{0}\ntRtR.",
        "(cpathlib\nPath.touch\nV{0}\no.",
    ],
)
def test_nothing_unknown_is_called_in_any_way(tmp_path, table):
    canary = tmp_path / "canary"
    found = read(archive(tmp_path / "a", table.format(canary).encode()))
    assert isinstance(found.content, Opaque)
    assert found.hazards
    assert not canary.exists()


def seeds(folder):
    """Small real containers: what the fuzz mutates."""
    weights = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}
    content = {"model": weights, "args": Slotted, "lr": np.float64(0.1), "order": OrderedDict(a=[1, (2, 3)])}
    folder.mkdir()
    torch.save(content, folder / "zip")
    torch.save(content, folder / "legacy", _use_new_zipfile_serialization=False)
    torch.save({"net": torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))}, folder / "module")
    np.savez(folder / "npz", **{name: tensor.numpy() for name, tensor in weights.items()})
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), folder / "script")
    from safetensors.torch import save_file

    save_file(weights, folder / "safetensors")


def fuzz(folder, count):
    seeds(folder / "seeds")
    here = Path(__file__)
    done = subprocess.run(
        [sys.executable, str(here.with_name("fuzz_reader.py")), str(folder), str(count)],
        capture_output=True,
        text=True,
        timeout=60 + count,
        cwd=here.parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["read"] + found["refused"] == count
    assert found["refused"] > count // 10
    assert found["read"] > 0
    assert not (folder / "canary").exists()


def test_mutated_files_are_read_or_refused(tmp_path):
    fuzz(tmp_path, 300)


@pytest.mark.slow
def test_ten_thousand_mutated_files_are_read_or_refused(tmp_path):
    fuzz(tmp_path, 10_000)
