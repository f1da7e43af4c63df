"""Reads mutations of small containers and looks for networks in them; a process of its own, started by its test.

``fuzz_reader.py FOLDER COUNT``.

Ends with another code than 0 at any exception that is no refusal, at 10 seconds for one file (with a traceback of where
it hangs), and at 4 GiB of memory above what the imports take. Every mutation follows from its number alone.
"""

import faulthandler
import io
import json
import random
import resource
import sys
import warnings
import zipfile
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: F401

from adapters.eightbits import widened
from adapters.layouts import recognise
from adapters.matching import match
from adapters.reader import read
from adapters.weightsets import weight_sets
from bench.errors import BenchError


def mutated(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out)) if out else 0
        what = rng.randrange(6)
        if what == 0:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            out[at : at + 1] = bytes([out[at] ^ 1 << rng.randrange(8)]) if out else b""
        elif what == 2:
            del out[at : at + rng.randrange(1, 64)]
        elif what == 3:
            out[at:at] = rng.randbytes(rng.randrange(1, 16))
        elif what == 4:
            start = rng.randrange(len(out)) if out else 0
            out[at:at] = out[start : start + rng.randrange(1, 128)]
        else:
            out[at : at + 8] = rng.choice(
                (b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", (1 << 40).to_bytes(8, "little"))
            )
    return bytes(out)


def inner(data: bytes, rng: random.Random) -> bytes:
    """A zip archive with one record mutated and its check sums right, so that the mutation reaches the readers."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        pickles = [name for name in names if name.endswith(("data.pkl", ".npy"))]
        chosen = rng.choice(pickles)
        for name in names:
            new.writestr(name, mutated(old.read(name), rng) if name == chosen else old.read(name))
    return out.getvalue()


def main(folder: Path, count: int) -> None:
    warnings.simplefilter("ignore")
    files = [(path.name, path.read_bytes()) for path in sorted((folder / "seeds").iterdir())]
    canary = f"cos\nsystem\n(Vtouch {folder / 'canary'}\ntR0".encode()
    # The address space that the imports took, and room for honest work.
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (4 << 30),) * 2)
    found = {"read": 0, "refused": 0}
    for number in range(count):
        rng = random.Random(zlib.crc32(b"%d" % number))
        name, data = files[number % len(files)]
        data = inner(data, rng) if data.startswith(b"PK") and rng.random() < 0.7 else mutated(data, rng)
        if rng.random() < 0.1:
            at = rng.randrange(len(data) + 1)
            data = data[:at] + canary + data[at:]
        path = folder / "mutated"
        path.write_bytes(data)
        faulthandler.dump_traceback_later(10, exit=True)
        content = None
        try:
            content = read(path).content
            found["read"] += 1
            sets, _ = widened(weight_sets(content), "mutated")
            names = {f"{own.key}/{name}": tuple(t.shape) for own in sets for name, t in own.tensors.items()}
            match(sets, arch=None, weights_key=None, file="mutated", layout=recognise(names))
        except BenchError:
            found["refused"] += content is None
        except BaseException:
            print(f"mutation {number} of {name}", file=sys.stderr)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
