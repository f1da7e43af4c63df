"""The protocol cards as files."""

from importlib.resources import files

import yaml

from bench import protocol


def test_both_readers_of_yaml_give_the_same_cards():
    """libyaml's where PyYAML was built with it, Python's own where not."""
    found = {}
    for path in sorted(files("suites").joinpath("protocols").iterdir(), key=lambda p: p.name):
        if path.name.endswith(".yaml"):
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                found[document["id"]] = protocol.Protocol.model_validate(document)
    assert len(found) > 100
    assert {id_: card for id_, card in protocol.cards().items() if id_ in found} == found
