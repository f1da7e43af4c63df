"""A page opened in a real headless Chromium, and what its colours are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTRAST = """
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = v => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c[3] === 255) return c;
    }
    return rgb(getComputedStyle(document.body).backgroundColor);
  };
  const bad = new Set();
  const seen = 'h1, h2, p, a, td, th, .cell, .badge, button, select, label, legend, figcaption, .dt-info';
  for (const e of document.querySelectorAll(seen)) {
    if (!e.offsetParent || !e.innerText.trim()) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.innerText.slice(0, 20)}`);
  }
  return [...bad].slice(0, 12);"""


def opened(driver: Any, path: Path, fragment: str = "", width: int = 1400, scheme: str = "light") -> Any:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get("about:blank")
    driver.get(path.as_uri() + fragment)
    until(lambda: driver.execute_script("return document.documentElement.dataset.ready"))
    return driver


def until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "the page did not come to that"
        time.sleep(0.05)
    return found
