"""Take the screenshots of the documents: `make demo`, then `make screenshots`. Needs Debian's chromium.

The lineage and a report come from the Dagster UI and the reports of `data/demo`, the page from its bento; the runs of
the loop and a history from `data/demo_loop`, if `make demo-loop` was run, and the flame graph from `make profile`. With
MLFLOW_TRACKING_URI, the curves come from that server.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

from demo import BIN, CHECKOUT, LOOPBACK, free_port
from playwright.sync_api import Browser, Page, sync_playwright

IMAGES = CHECKOUT / "docs" / "images"
ZOOM = "name => zoom([...document.querySelectorAll('#frames g')].find(each => each.textContent.includes(name)))"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@contextlib.contextmanager
def running(home: Path, ready: str, *command: str) -> Iterator[str]:
    """Run a server on a free port until the block ends; yield its address once `ready` responds."""
    address = f"http://127.0.0.1:{(port := free_port())}"
    environment = os.environ | {
        "EMOTION_DATA_DIR": str(home),
        "BENTOML_HOME": str(home / "bentoml"),
        "DAGSTER_HOME": str(home / "dagster_home"),
    }
    words = [str(BIN / command[0]), *command[1:], "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(words, cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(240):
                with contextlib.suppress(urllib.error.URLError, OSError), LOOPBACK.open(address + ready):
                    break
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            process.wait(timeout=60)


def open_page(browser: Browser, address: str, width: int, height: int) -> Page:
    page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1)
    page.goto(address)
    page.wait_for_load_state("networkidle")
    return page


def take_lineage(browser: Browser, home: Path) -> None:
    with running(home, "/server_info", "dagster-webserver", "-w", "workspace.yaml") as address:
        page = open_page(browser, f"{address}/asset-groups", 1760, 620)
        page.wait_for_selector("text=drift_report")
        time.sleep(3)
        page.screenshot(path=IMAGES / "lineage.png")


def take_runs(browser: Browser, home: Path) -> None:
    with running(home, "/server_info", "dagster-webserver", "-w", "workspace.yaml") as address:
        page = open_page(browser, f"{address}/runs", 1400, 560)
        page.wait_for_selector("text=retrain")
        page.screenshot(path=IMAGES / "loop_runs.png")


def take_report(browser: Browser, home: Path) -> None:
    report = max(home.glob("reports/evaluation/*/report.html"))
    page = open_page(browser, report.as_uri(), 1000, 1400)
    page.screenshot(path=IMAGES / "evaluation.png")


def take_page(browser: Browser, home: Path) -> None:
    with running(home, "/readyz", "bentoml", "serve", "emotion_service:latest") as address:
        page = open_page(browser, address, 960, 720)
        page.set_input_files("#file", home / "question.jpg")
        page.wait_for_selector("text=This face looks")
        time.sleep(1)
        page.screenshot(path=IMAGES / "page.png")


def take_profile(browser: Browser, flame_graph: Path) -> None:
    page = open_page(browser, flame_graph.as_uri(), 1200, 800)
    page.evaluate(ZOOM, "Trainer._fit_impl")
    time.sleep(1)
    clip = {"x": 0, "y": 45, "width": 1200, "height": 755}  # without the title, which names this machine's folders
    page.screenshot(path=IMAGES / "training_profile.png", clip=clip)


def take_history(browser: Browser, home: Path) -> None:
    with running(home, "/server_info", "dagster-webserver", "-w", "workspace.yaml") as address:
        page = open_page(browser, f"{address}/assets/evaluation_report?view=overview", 1400, 900)
        page.get_by_text("[Show Markdown]").first.click()
        page.wait_for_selector("img[alt=history]")
        time.sleep(2)
        page.screenshot(path=IMAGES / "history.png")


def take_mlflow(browser: Browser, server: str) -> None:
    page = browser.new_page(viewport={"width": 1600, "height": 900})  # it never stops asking its server
    page.goto(f"{server}/#/experiments/1/runs?compareRunsMode=CHART")
    page.wait_for_selector("text=matching runs")
    time.sleep(10)
    page.screenshot(path=IMAGES / "mlflow.png", clip={"x": 200, "y": 0, "width": 985, "height": 900})


def main() -> int:
    demo, loop = CHECKOUT / "data" / "demo", CHECKOUT / "data" / "demo_loop"
    if CHROMIUM is None:
        return _fail("There is no Chromium. On Debian: apt install chromium")
    if not (demo / "question.jpg").exists():
        return _fail("Run `make demo` first.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for take in (take_lineage, take_report, take_page):
            take(browser, demo)
            print(f"{take.__name__}: done")
        if (loop / "result.json").exists():
            take_runs(browser, loop)
            take_history(browser, loop)
        if (flame_graph := CHECKOUT / "build" / "training.svg").exists():
            take_profile(browser, flame_graph)
        if server := os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/"):
            take_mlflow(browser, server)
        browser.close()
    return 0


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
