"""What is published again takes with it what is gone, and nothing that is not its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recordhelp import Maker

from bench.errors import BenchError
from reports import earlier
from reports.earlier import NAME, Earlier, remove_stale
from reports.site import publish


def pages(site: Path) -> set[str]:
    return {path.name for path in (site / "models").iterdir()}


def test_pages_of_models_that_are_gone_go_too(make: Maker, tmp_path: Path) -> None:
    runs, site = tmp_path / "runs", tmp_path / "site"
    make(runs=runs)
    publish(runs, site)
    (kept,) = pages(site)
    make("net-b", runs=runs)
    assert publish(runs, site).removed == 0
    assert len(pages(site)) == 2
    (gone,) = pages(site) - {kept}
    for path in runs.glob("run-net-b*.json"):
        path.unlink()
    (site / "models" / "mine.html").write_text("mine")
    (site / "mine.html").write_text("mine")
    summary = publish(runs, site)
    assert summary.removed == 1
    assert "removed 1 file of models that are gone" in str(summary)
    assert pages(site) == {kept, "mine.html"}
    assert (site / "mine.html").read_text() == "mine"
    assert gone not in (site / NAME).read_text()
    assert publish(runs, site).removed == 0


def test_a_page_that_somebody_changed_stays(make: Maker, tmp_path: Path) -> None:
    runs, site = tmp_path / "runs", tmp_path / "site"
    make(runs=runs)
    publish(runs, site)
    (page,) = (site / "models").iterdir()
    page.write_text(page.read_text() + "<!-- mine -->")
    for path in runs.glob("*.json"):
        path.unlink()
    assert publish(runs, site).removed == 0
    assert page.exists()


def test_a_publication_cut_short_forgets_nothing(make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, site = tmp_path / "runs", tmp_path / "site"
    make(runs=runs)
    publish(runs, site)
    (page,) = pages(site)
    for path in runs.glob("*.json"):
        path.unlink()
    with monkeypatch.context() as cut:
        cut.setattr(earlier, "remove_stale", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish(runs, site)
    assert pages(site) == {page}
    assert publish(runs, site).removed == 1
    assert not (site / "models").exists()


def listed(*names: str) -> Earlier:
    found = Earlier()
    for name in names:
        found.note(name, b"x")
    return found


def test_a_list_cannot_lead_out_of_the_site(tmp_path: Path) -> None:
    site, outside = tmp_path / "site", tmp_path / "outside"
    for folder in (site / "models", outside):
        folder.mkdir(parents=True)
    names = [
        "../outside/a",
        str(outside / "a"),
        "models/../../outside/a",
        "models/link",
        "link/a",
        "models/deep/a",
        "b",
    ]
    for path in (outside / "a", site / "b"):
        path.write_bytes(b"x")
    (site / "models" / "link").symlink_to(outside / "a")
    (site / "models" / "deep").symlink_to(outside)
    (site / "link").symlink_to(outside)
    assert remove_stale(site, listed(*names), Earlier()) == 0
    assert (outside / "a").exists()
    assert (site / "models" / "link").is_symlink()
    # The site itself may be reached by a link.
    (tmp_path / "way").symlink_to(site)
    (site / "models" / "own").write_bytes(b"x")
    assert remove_stale(tmp_path / "way", listed("models/own"), Earlier()) == 1


@pytest.mark.parametrize("content", [b"{", b"[]", json.dumps({"format": 1, "files": {"a": 3}}).encode(), b"\xff"])
def test_a_damaged_list_is_refused(content: bytes, make: Maker, tmp_path: Path) -> None:
    make(runs=tmp_path / "runs")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / NAME).write_bytes(content)
    with pytest.raises(BenchError, match="is damaged: remove it"):
        publish(tmp_path / "runs", tmp_path / "site")
    assert [path.name for path in (tmp_path / "site").iterdir()] == [NAME]
