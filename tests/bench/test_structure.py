"""The rooms: who may import whom, and no circles, lazy imports included."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("bench", "adapters", "suites", "reports")
FRONT_DOOR = "bench.cli"


def modules() -> dict[str, Path]:
    found = {}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, names: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that run with this one, wherever in it the import stands; what is only for types does not run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in names or node.module in names:
                    yield inner if inner in names else node.module
        yield from imported(node, names)


def graph() -> dict[str, set[str]]:
    names = modules()
    assert len(names) > 200
    return {name: set(imported(ast.parse(path.read_text()), names)) - {name} for name, path in names.items()}


def test_no_circles() -> None:
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        raise AssertionError("circle of imports: " + " -> ".join(error.args[1])) from None


def test_every_room_imports_itself_and_the_engine_alone() -> None:
    strangers = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if name != FRONT_DOOR and other.split(".")[0] not in (name.split(".")[0], "bench")
    ]
    assert not strangers
