"""In a real headless Chromium: every printed number in both modes, the tips, the rows' heads, paper, a model's page."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from browserhelp import CONTRAST, opened, until
from PIL import Image

from bench.ledger import Ledger, as_table
from reports import printed
from reports.site import publish

pytestmark = pytest.mark.browser
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><script>top.hit = 1</script></svg>'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recordhelp import card, record

    folder = tmp_path_factory.mktemp("pages")
    made = record("alpha", model=card("alpha", method="dino"))
    stream = io.BytesIO()
    Image.new("RGB", (6 * 72, 72), "red").save(stream, format="JPEG")
    sample = {"id": "test/1", "label": "hen", "right": True}
    row = {
        **sample,
        "prediction": "hen",
        "neighbours": [{**sample, "similarity": 0.9, "right": i < 3} for i in range(5)],
    }
    points = [{**sample, "x": i, "y": i * i, "prediction": "hen"} for i in range(12)]
    files = {
        "knn-neighbours.jpg": stream.getvalue(),
        "knn-neighbours.json": json.dumps({"tile": 72, "rows": [row]}).encode(),
        "knn-map.json": json.dumps({"how": "t-SNE", "points": points}).encode(),
        "knn-curve.svg": SVG,
    }
    tables = {m.outcomes.rpartition("/")[2][:-4]: _table(i) for i, m in enumerate(made.measurements) if m.outcomes}
    many = [
        made.measurements[1].model_copy(update={"settings": {"k": k, "temperature": 0.5}, "outcomes": None})
        for k in range(1, 30)
    ]  # fmt: skip
    made.measurements += many
    Ledger(folder / "runs").add(made, {**tables, **{name: as_table(content) for name, content in files.items()}})
    record("beta", seed=4, model=card("beta"), runs=folder / "runs")
    publish(folder / "runs", folder / "site")
    return folder / "site"


def _table(seed: int) -> Any:
    import numpy as np
    from recordhelp import outcomes

    table = outcomes(seed, 0.8, 1000)
    return {**table, "confidence": np.random.default_rng(seed).random(1000)}


@pytest.mark.parametrize("table", sorted(printed.FILES))
def test_every_number_as_printed_and_as_audited(driver: Any, site: Path, table: str) -> None:
    """Through the page itself: audited differs from printed exactly where a verified row of the audit says so."""

    def shown(mode: str) -> list[list[str]]:
        driver.find_element("css selector", f"[name=values][value={mode}]").click()
        return list(csv.reader(io.StringIO(driver.execute_script("return board.text(arguments[0], 'csv')", table))))

    opened(driver, site / "index.html")
    before, after = shown("printed"), shown("audited")
    text = {"method", "year", "family", "backbone", "loss", "data", "teacher", "student", "source", "target"}
    wanted = sorted(v for row in printed.rows(table) for key, v in row.items() if key not in text and v)
    first = 1 if table.startswith("dcd") else 5
    cells = [cell.rstrip("†?≈") for row in before[1:] for cell in row[first:-2]]
    assert sorted(cell for cell in cells if cell != "–") == wanted
    changed = {
        (old[0], old[i].rstrip("†?≈"), new[i].rstrip("†?≈"))
        for old, new in zip(before[1:], after[1:], strict=True)
        for i in range(first, len(old) - 2)
        if old[i] != new[i]
    }
    corrected = {
        (a.method, a.survey_value or "–", a.audited_value or "–")
        for a in printed.audits()
        if a.table == table and a.standing == "corrected" and a.column != "different architecture"
    }
    pairs = {(m, a, b) for m, a, b in changed if (m, b) == ("FSP", "–") and table == "dcd1"}
    assert changed - pairs == corrected
    assert len(pairs) == (6 if table == "dcd1" else 0), "FSP's pairs of different architecture"
    notes = " ".join(row[-1] for row in before)
    for audit in printed.audits():
        if audit.table == table:
            assert audit.note in notes, "the text export says what the audit found"
            if audit.basis != "verified":
                assert "not confirmed" in notes


def test_tips_answer_to_hover_and_to_focus(driver: Any, site: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    opened(driver, site / "index.html")
    cell = driver.find_element("css selector", "#measured-0 tbody td .cell[data-tip]")
    tip = driver.find_element("id", "tip")
    for reach in (lambda: ActionChains(driver).move_to_element(cell).perform(), lambda: driver.execute_script(
            "arguments[0].focus()", cell)):  # fmt: skip
        driver.execute_script("document.activeElement.blur(); document.getElementById('tip').hidden = true")
        reach()
        until(tip.is_displayed)
        for word in ("95 % interval", "n 1,000", "1 run", "seeds 0", "rank 1", "knn/dino@1"):
            assert word in tip.text
        ActionChains(driver).move_to_element(driver.find_element("tag name", "h1")).perform()


def test_rows_have_heads_and_paper_has_no_buttons(driver: Any, site: Path) -> None:
    opened(driver, site / "index.html")
    heads = driver.execute_script(
        "return [...document.querySelectorAll('table.board tbody tr')].map(r => r.cells[0].tagName + r.cells[0].scope)"
    )
    assert set(heads) == {"THrow"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    script = "return [...document.querySelectorAll('nav, .bar, button, .dt-search')].filter(e => e.offsetParent).length"
    assert driver.execute_script(script) == 0
    assert driver.execute_script("return document.querySelectorAll('#ssl tbody tr').length") == len(printed.rows("ssl"))
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_a_models_page(driver: Any, site: Path, width: int, scheme: str) -> None:
    driver.get_log("browser")
    page = next((site / "models").glob("alpha*.html"))
    opened(driver, page, width=width, scheme=scheme)
    until(lambda: driver.execute_script("return document.querySelectorAll('.draw svg').length >= 6"))
    titles = driver.execute_script("return [...document.querySelectorAll('h2, h3')].map(e => e.innerText)")
    for title in ("knn: calibration", "knn: map of the features", "knn: nearest neighbours", "knn top1: confusion"):
        assert title in titles
    assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth + 1")
    tiles = driver.execute_script(
        "return [...document.querySelectorAll('.tile')].map(t => [t.offsetWidth, t.className, t.ariaLabel ?? ''])"
    )
    assert [kind for _, kind, _ in tiles] == ["tile right"] * 4 + ["tile wrong"] * 2
    assert {size for size, *_ in tiles} == {80}
    assert all(label for *_, label in tiles)
    loaded = (
        "const i = document.querySelector('.drawings img'); i.scrollIntoView(); return i.complete && i.naturalWidth"
    )
    until(lambda: driver.execute_script(loaded) == 40)
    assert driver.execute_script("return window.hit") is None, "nothing in an SVG runs"
    assert driver.execute_script(CONTRAST) == []
    assert driver.get_log("browser") == []


def test_measurements_are_searched(driver: Any, site: Path) -> None:
    opened(driver, next((site / "models").glob("alpha*.html")))
    assert not driver.find_element("id", "measurements").is_displayed()
    driver.find_element("css selector", "summary").click()
    box = driver.find_element("css selector", "[type=search]")
    box.send_keys("mean_per_class")
    script = "return [...document.querySelectorAll('#measurements tbody tr')].filter(r => r.offsetParent).length"
    until(lambda: driver.execute_script(script) == 1)
    assert driver.find_element("id", "found").text == "1 of 39 fit"
    box.clear()
    box.send_keys("k=7,")
    until(lambda: driver.execute_script(script) == 1)
