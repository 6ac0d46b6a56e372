"""Draw the README's lineage picture: Kedro-Viz in a headless browser.

    pip install -e ".[docs]"
    python docs/lineage.py

Needs Chromium and its driver. Builds the static Kedro-Viz site of the project, serves
it from this machine, opens the main job with all namespaces collapsed and four of the
report's results, and saves what the browser shows to docs/images/lineage.png.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageChops
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"theme": "light", "showFeatureHints": False}
SHOWN = ("figure_proxy_vs_gold", "figure_sample_grid", "report_text", "report_metrics")
"""Results that the picture shows. With all that the report makes it would be far wider than
a page, and no name could be read."""
LIGHT = (
    "document.querySelectorAll('.kui-theme--dark').forEach("
    "e => e.classList.replace('kui-theme--dark', 'kui-theme--light'))"
)
# Kedro-Viz fits the graph beside the sidebar, which is hidden here, and so too far to the
# right: zoomed out about the left edge, all of it is seen.
ZOOM_OUT = (
    "document.querySelector('svg.pipeline-flowchart__graph').dispatchEvent("
    "new WheelEvent('wheel', {deltaY: 120, clientX: 0, clientY: 400, bubbles: true}))"
)
HIDDEN = (
    '[class*="feature-hints"], [class*="update-reminder"], .pipeline-minimap,'
    " .pipeline-global-toolbar, .pipeline-sidebar, .pipeline-warning {display: none}"
    # Where the sidebar was: beside the graph, and not on it.
    " .pipeline-flowchart__layer-names {left: -60px !important}"
    " .pipeline-layer-name {font-size: 1.2em}"
)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve ``folder`` on a free port of this machine; gives the address."""
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(folder)
    )
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def build() -> Path:
    """Build the static site; gives its folder."""
    command = [sys.executable, "-m", "kedro", "viz", "build", "--include-previews"]
    environment = {**os.environ, "KEDRO_ENV": "study"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return ROOT / "build"


def shorten(site: Path) -> None:
    """Leave out of a site's graphs what the report makes, except ``SHOWN``."""
    for path in [site / "api" / "main", *(site / "api" / "pipelines").iterdir()]:
        graph = json.loads(path.read_text())
        boxes = graph["modular_pipelines"]
        results = set(boxes["report"]["outputs"]) if "report" in boxes else set()
        left_out = {
            node["id"]
            for node in graph["nodes"]
            if node["id"] in results and node["name"] not in SHOWN
        }
        graph["nodes"] = [n for n in graph["nodes"] if n["id"] not in left_out]
        graph["edges"] = [
            edge
            for edge in graph["edges"]
            if not {edge["source"], edge["target"]} & left_out
        ]
        for box in boxes.values():
            box["outputs"] = [name for name in box["outputs"] if name not in left_out]
            box["children"] = [c for c in box["children"] if c["id"] not in left_out]
        path.write_text(json.dumps(graph))


def browser(width: int, height: int, profile: str) -> webdriver.Chrome:
    """A headless Chromium that talks to nobody but this machine."""
    options = webdriver.ChromeOptions()
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        f"--window-size={width},{height}",
        "--force-device-scale-factor=2",
    ):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium") or ""
    return webdriver.Chrome(options, Service(shutil.which("chromedriver")))


def picture(address: str, pipeline: str, width: int, height: int) -> bytes:
    """What the browser shows of a pipeline, as PNG."""
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(width, height, profile)
        try:
            driver.get(address)
            store = (
                f"localStorage.setItem('KedroViz', {json.dumps(json.dumps(SETTINGS))})"
            )
            driver.execute_script(store)
            driver.get(f"{address}/?pid={pipeline}")
            driver.execute_script(store)
            driver.refresh()
            WebDriverWait(driver, 120).until(
                lambda d: d.find_elements(By.CSS_SELECTOR, ".pipeline-node")
            )
            driver.execute_script(
                "const s = document.createElement('style');"
                f"s.textContent = {json.dumps(HIDDEN)}; document.head.append(s)"
            )
            driver.execute_script(LIGHT)
            settled(driver)
            driver.execute_script(ZOOM_OUT)
            return cropped(settled(driver))
        finally:
            driver.quit()


def settled(driver: webdriver.Chrome, seconds: float = 6, most: int = 20) -> bytes:
    """What the browser shows when it has stopped changing: the layout is animated.

    Args:
        driver: The browser.
        seconds: Time without a change.
        most: Looks before giving up.
    """
    before = b""
    for _ in range(most):
        time.sleep(seconds)
        now = driver.get_screenshot_as_png()
        if now == before:
            return now
        before = now
    raise TimeoutError("Kedro-Viz was still changing its picture. Try again.")


def cropped(png: bytes, margin: int = 30) -> bytes:
    """The picture without its empty border."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    empty = Image.new("RGB", image.size, image.getpixel((2, 2)))
    left, top, right, bottom = ImageChops.difference(image, empty).getbbox() or (
        *(0, 0),
        *image.size,
    )
    box = (
        max(left - margin, 0),
        max(top - margin, 0),
        min(right + margin, image.width),
        min(bottom + margin, image.height),
    )
    output = io.BytesIO()
    image.crop(box).save(output, format="PNG", optimize=True)
    return output.getvalue()


def main() -> None:
    """Build, open, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipeline", default="train_eval")
    parser.add_argument("--size", type=int, nargs=2, default=[960, 800])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "images" / "lineage.png"
    )
    options = parser.parse_args()
    site = build()
    shorten(site)
    with served(site) as address:
        options.output.write_bytes(picture(address, options.pipeline, *options.size))
    print(options.output)


if __name__ == "__main__":
    main()
