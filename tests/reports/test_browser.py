"""The board in a real headless Chromium: sort, filter, search, switch, export, and not one request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from browserhelp import CONTRAST, opened, until

from reports.site import publish

pytestmark = pytest.mark.browser

EVIL = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>\''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    from recordhelp import card, record

    folder = tmp_path_factory.mktemp("site")
    for i, (name, accuracy, method) in enumerate(
        [("alpha", 0.9, "dino"), ("beta", 0.895, "mae"), ("gamma", 0.6, "dino"), (EVIL, 0.5, EVIL)]
    ):
        record(
            name, run=f"run-{i}", seed=i, accuracy=accuracy, model=card(name, method=method, architecture=EVIL),
            runs=folder / "runs",
        )  # fmt: skip
    record("alpha", run="run-in1k", dataset="imagenet", model=card("alpha", method="dino"), runs=folder / "runs")
    publish(folder / "runs", folder / "site")
    return folder / "site"


def names(driver: Any, table: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0] + ' tbody tr .name')].map(e => e.innerText.trim())"
    return [name.removesuffix("measured").strip() for name in driver.execute_script(script, f"#{table}")]


def cell(driver: Any, method: str, column: str) -> Any:
    """The element of a cell of the SSL table, by method and head."""
    script = """
      const table = document.getElementById('ssl'), heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
      const index = heads.findIndex(h => h.innerText.trim() === arguments[1]);
      const row = [...table.tBodies[0].rows].find(r => r.querySelector('.name').innerText.trim() === arguments[0]);
      return row.cells[index];"""
    return driver.execute_script(script, method, column)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_no_request_no_error_and_it_fits(driver: Any, site: Path, width: int, scheme: str) -> None:
    driver.get_log("browser"), driver.get_log("performance")
    for path in (site / "index.html", next((site / "models").glob("alpha*.html"))):
        opened(driver, path, width=width, scheme=scheme)
        until(lambda: driver.execute_script("return document.querySelector('.draw svg') !== null"))
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth + 1"), (
            "no sideways scroll"
        )
        ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
        assert driver.execute_script("return document.querySelectorAll('.draw svg').length") >= 2
    assert driver.get_log("browser") == []
    import json

    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            assert url.startswith((site.as_uri(), "about:", "data:", "blob:")), url


def test_sort_by_click_and_by_key(driver: Any, site: Path) -> None:
    opened(driver, site / "index.html")
    head = driver.execute_script(
        "return [...document.querySelectorAll('#ssl thead th')].find(h => h.innerText.trim() === 'kNN')"
    )
    head.click()
    until(lambda: names(driver, "ssl")[0] == "DINOv2")
    assert cell(driver, names(driver, "ssl")[-1], "kNN").text == "–", "unreported last"
    head.click()
    until(lambda: names(driver, "ssl")[0] != "DINOv2")
    first = names(driver, "ssl")[0]
    assert cell(driver, first, "kNN").text.rstrip("†") != "–"
    from selenium.webdriver.common.keys import Keys

    button = driver.execute_script("return document.querySelector('#ssl thead [tabindex=\"0\"]')")
    button.send_keys(Keys.ENTER)
    until(lambda: names(driver, "ssl")[0] == "ALIGN")


def test_filter_search_and_shared_view(driver: Any, site: Path) -> None:
    from selenium.webdriver.support.ui import Select

    opened(driver, site / "index.html")
    Select(driver.find_element("css selector", "[data-filters=ssl] [data-filter=family]")).select_by_value(
        "contrastive"
    )
    assert set(names(driver, "ssl")) == {"MoCo v1", "SimCLR", "MoCo v2", "MoCo v3"}
    box = driver.find_element("css selector", "#section-ssl .dt-search input")
    box.send_keys("moco")
    until(lambda: set(names(driver, "ssl")) == {"MoCo v1", "MoCo v2", "MoCo v3"})
    view = driver.execute_script("return location.hash")
    assert "ssl.family=contrastive" in view
    opened(driver, site / "index.html", view)
    assert set(names(driver, "ssl")) == {"MoCo v1", "MoCo v2", "MoCo v3"}
    Select(driver.find_element("css selector", "[data-filters=ssl] [data-filter=kind]")).select_by_value("measured")
    driver.execute_script("location.hash = 'ssl.kind=measured'")
    until(lambda: names(driver, "ssl") == ["alpha"])


def test_audit_switch_tooltip_and_exports(driver: Any, site: Path) -> None:
    opened(driver, site / "index.html")
    assert cell(driver, "SimCLR", "kNN").text.startswith("64.5")
    driver.find_element("css selector", "[name=values][value=audited]").click()
    assert cell(driver, "SimCLR", "kNN").text.startswith("60.7")
    assert cell(driver, "DINO", "LP").text.startswith("–"), "the audit takes away what has no source"
    assert cell(driver, "BYOL", "box").text.startswith("42.0"), "what nobody confirmed stays"
    mark = cell(driver, "SimCLR", "kNN").find_element("css selector", "[data-tip]")
    driver.execute_script("arguments[0].focus()", mark)
    tip = driver.find_element("id", "tip")
    assert tip.is_displayed()
    assert "Printed: 64.5" in tip.text
    assert "DINO Table 2" in tip.text
    assert mark.get_attribute("aria-describedby") == "tip"
    from selenium.webdriver.common.keys import Keys

    mark.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    for form in ("csv", "md", "tex"):
        text = driver.execute_script("return board.text('ssl', arguments[0])", form)
        assert "60.7" in text
        assert "printed 64.5" in text
        assert "DINO Table 2 prints 60.7" in text
        assert "SwAV" in text
    driver.find_element("css selector", "[data-filters=ssl] [data-export=csv]").click()
    until(lambda: list(driver.downloads.glob("ssl*.csv")))
    assert "60.7" in next(driver.downloads.glob("ssl*.csv")).read_text()


def test_what_is_hidden_is_not_exported(driver: Any, site: Path) -> None:
    opened(driver, site / "index.html", "#ssl.family=clustering")
    lines = driver.execute_script("return board.text('ssl', 'csv')").splitlines()
    assert len(lines) == 2
    assert "Loss" in lines[0]
    driver.find_element("css selector", "#section-ssl .dt-buttons button").click()
    choice = until(
        lambda: [b for b in driver.find_elements("css selector", ".dt-button-collection button") if "Loss" in b.text]
    )
    choice[0].click()
    assert "Loss" not in driver.execute_script("return board.text('ssl', 'csv')").splitlines()[0]


def test_measured_beside_published_with_ties(driver: Any, site: Path) -> None:
    opened(driver, site / "index.html")
    rows = driver.execute_script("return document.querySelectorAll('#ssl tr.measured').length")
    assert rows == 1
    assert "measured" in driver.execute_script("return document.querySelector('#ssl tr.measured').innerText")
    bold = driver.execute_script(
        "return [...document.querySelectorAll('#measured-0 .best')]"
        ".map(e => e.closest('tr').querySelector('.name').innerText)"
    )
    assert {"alpha", "beta"} <= set(bold)
    assert "gamma" not in bold
    tip = driver.execute_script("return document.querySelector('#measured-0 .cell[data-tip]').dataset.tip")
    assert "95 % interval" in tip
    assert "knn/dino@1" in tip


def test_hostile_names_run_nothing(driver: Any, site: Path) -> None:
    opened(driver, site / "index.html")
    driver.find_element("css selector", "#section-measured-0 .dt-buttons button").click()
    time.sleep(0.3)
    assert EVIL in names(driver, "measured-0")
    assert driver.execute_script("return window.hit") is None
    link = driver.execute_script(
        "return [...document.querySelectorAll('#measured-0 a')].find(a => a.innerText.includes('img'))"
    )
    opened(driver, Path(link.get_attribute("href").removeprefix("file://")))
    assert driver.execute_script("return [document.querySelector('h1').innerText, window.hit]") == [EVIL, None]


def test_structure_for_a_screen_reader(driver: Any, site: Path) -> None:
    opened(driver, site / "index.html")
    script = """
      const bad = [];
      const told = e => bad.push(e.outerHTML.slice(0, 90));
      for (const th of document.querySelectorAll('thead th')) if (!th.getAttribute('scope')) told(th);
      for (const e of document.querySelectorAll('input, select, button')) {
        const label = e.labels && e.labels.length && e.labels[0].innerText;
        if (!e.getAttribute('aria-label') && !e.innerText && !label) told(e);
      }
      for (const t of document.querySelectorAll('table.board')) if (!t.getAttribute('aria-labelledby')) told(t);
      for (const s of document.querySelectorAll('.draw svg'))
        if (!s.closest('[aria-label]') && !s.querySelector('[aria-label]')) told(s);
      const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
      for (const id of ids) if (id && ids.indexOf(id) !== ids.lastIndexOf(id)) bad.push('twice: ' + id);
      return bad;"""
    assert driver.execute_script(script) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_is_aa(driver: Any, site: Path, scheme: str) -> None:
    opened(driver, site / "index.html", scheme=scheme)
    assert driver.execute_script(CONTRAST) == []
    driver.find_element("css selector", "[name=values][value=audited]").click()
    assert driver.execute_script(CONTRAST) == []
