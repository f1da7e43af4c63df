from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from storehelp import Arrays, Tiny, reference

from bench.extract import extract
from bench.progress import Progress

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(dataset, backbone=None, features=("pooled",), progress=None, **options):
    options.setdefault("workers", 0)
    progress = progress or Progress(io.StringIO(), quiet=True)
    return extract(backbone or Tiny(), dataset, features, device=CPU, progress=progress, **options)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize(("batch", "shard"), [(None, None), (7, 21), (1, 1), (100, 300), (16, 16)])
def test_features_are_the_networks_whatever_batch_shard_and_workers(workers, batch, shard):
    data = Arrays(61)
    got = run(data, features=("pooled", "logits"), workers=workers, batch=batch, shard=shard)
    for name in ("pooled", "logits"):
        np.testing.assert_allclose(got.features.array(name), reference(Tiny(), data, name), atol=1e-5)
    assert got.features.ids == data.ids
    np.testing.assert_array_equal(got.features.labels, data.labels)
    assert got.decoded == 61
    assert got.reused == 0


def test_a_second_call_decodes_nothing_and_another_suite_finds_its_feature(tmp_path):
    data = Arrays(40, log=tmp_path / "log")
    first = run(data, batch=8, shard=16)
    again = run(data, features=("logits", "avg"))
    assert (first.decoded, again.decoded, again.reused) == (40, 0, 40)
    assert len((tmp_path / "log").read_text().split()) == 40
    np.testing.assert_allclose(again.features.array("logits"), reference(Tiny(), data, "logits"), atol=1e-5)
    assert again.folders == first.folders
