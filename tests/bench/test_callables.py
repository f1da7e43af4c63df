"""The names that records hold in place of functions."""

import functools
import subprocess
import sys
import textwrap

import torch

from bench.callables import name_of


def take(out, key="z"):
    return out[key]


class Pool:
    def __init__(self, size):
        self.size = size

    def __call__(self, out):
        return out

    def method(self, out):
        return out

    def __repr__(self):
        return f"Pool({self.size})"


def test_a_function_of_a_module_has_its_name():
    assert name_of(take) == f"{__name__}.take"
    assert name_of(torch.flatten).endswith("flatten")
    assert name_of(functools.partial(take, key="y")) == f"{__name__}.take(key='y')"
    assert name_of(functools.partial(take, key="y")) != name_of(functools.partial(take, key="z"))


def test_objects_are_named_by_their_text_without_the_address():
    assert name_of(Pool(3)) == "Pool(3)"
    assert name_of(Pool(3)) != name_of(Pool(4))
    assert name_of(Pool(3).method) == f"{__name__}.Pool.method of Pool(3)"
    assert " at 0x" not in name_of(type("Bare", (), {"__call__": lambda self, x: x})())
    long = name_of(torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(30)]))
    assert len(long) < 200
    assert "\n" not in long


def test_functions_without_a_name_of_their_own_are_told_apart_by_what_they_do():
    first, second, same = (lambda out: out[0]), (lambda out: out[1]), (lambda out: out[0])
    assert name_of(first) != name_of(second)
    assert name_of(first) == name_of(same)
    assert name_of(lambda out, i=0: out[i]) != name_of(lambda out, i=1: out[i])
    assert name_of(lambda out: out.first) != name_of(lambda out: out.second)

    def indexer(i):
        def index(out):
            return out[i]

        return index

    assert name_of(indexer(0)) != name_of(indexer(1))
    assert name_of(indexer(1)) == name_of(indexer(1))


def test_a_name_is_the_same_in_another_process():
    code = textwrap.dedent("""
        from bench.callables import name_of
        def make(k):
            return lambda out: out[k] if k in {"a", "b", "c", "d"} else (lambda: 3)
        class Plain:
            def __call__(self, x): return x
        print(name_of(make("a")), name_of(Plain()))
    """)
    names = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(names) == 1
    assert " at 0x" not in names.pop()
