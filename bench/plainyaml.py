"""YAML as people write it: no aliases, no key twice, no depth that a hand would not type."""

from __future__ import annotations

import re
from typing import Any

import yaml

from bench.errors import BenchError

DEEPEST = 100


def plain(text: str, where: str) -> tuple[yaml.Node | None, Any]:
    """The document in ``text`` as nodes (they know their lines) and as values. Raises `BenchError` with the line."""
    if _is_deep(text):
        raise BenchError(f"{where} is nested over {DEEPEST} deep: write it flat")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise BenchError(f"{where} uses YAML aliases (*name), which are not needed here: write the value out")
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
        if (twice := _twice(node)) is not None:
            line = twice.start_mark.line + 1
            raise BenchError(f"{where}, line {line}: '{twice.value}' is there twice: YAML would keep the last alone")
        return node, yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        raise BenchError(f"{where}{place}: not YAML: {getattr(error, 'problem', None) or error}") from None


def _is_deep(text: str) -> bool:
    """Whether brackets are open beyond `DEEPEST`: reading those takes the square of their number."""
    depth = 0
    for sign in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if sign in "[{" else max(0, depth - 1)
        if depth > DEEPEST:
            return True
    return False


def _twice(node: yaml.Node | None) -> yaml.ScalarNode | None:
    """The first key that a mapping at or below ``node`` holds a second time."""
    inside: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    return key
                known.add(key.value)
            inside.append(value)
    elif isinstance(node, yaml.SequenceNode):
        inside = node.value
    return next((found for part in inside if (found := _twice(part)) is not None), None)
