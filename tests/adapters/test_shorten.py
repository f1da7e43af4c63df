"""The script that takes the first layers of a text encoder."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="the extra [text] is not installed")

from texthelp import encoder

from adapters import path as paths
from bench.dataset import Text
from bench.errors import BenchError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "shorten_text_encoder.py"


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "mpnet"])
def test_its_feature_is_the_layer_of_the_whole_network(tmp_path: Path, kind: str) -> None:
    shorten = runpy.run_path(str(SCRIPT))["shorten"]
    shorten(encoder(tmp_path / "whole", kind), tmp_path / "short", 1)
    whole, short = (paths.load(str(tmp_path / name)) for name in ("whole", "short"))
    rows = torch.stack([whole.preprocess(Text(words)) for words in ("the cat sat", "a dog ran on the mat")])
    with torch.no_grad():
        layer = whole.blocks(rows, n=2)[0]
        found = short.features(rows)
    torch.testing.assert_close(found["avg"], layer[0][:, 0])
    torch.testing.assert_close(found["cls"], layer[1])
    assert short.card.coverage.unused == []
    assert short.depth == 1
    with pytest.raises(BenchError, match="has 2 layers: 2 of them are no shorter network"):
        shorten(tmp_path / "whole", tmp_path / "other", 2)
