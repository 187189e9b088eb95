"""Visit Airflow's UI in a browser and save screenshots: the login, the DAG's docs, the graph, a log, the links, an artifact.

python visit_ui.py http://127.0.0.1:8080 PASSWORD FOLDER
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

RUN = "market_daily/runs/session__2026-01-15"
ORDER = ("decide", "branch", "fetch_prices", "is_training_day", "train", "plot")
TIMEOUT_SECONDS = 60


def log_in(page: Page, url: str, password: str) -> None:
    """Log in as admin."""
    page.goto(url)
    page.locator("input[name=username]").fill("admin")
    page.locator("input[name=password]").fill(password)
    page.locator("input[type=submit], button[type=submit]").first.click()
    expect(page.get_by_role("link", name=re.compile("Dags", re.IGNORECASE)).first).to_be_visible()


def visit_pages(page: Page, url: str, folder: Path) -> None:
    """Open the pages and save a screenshot of each in `folder`. Raises AssertionError if something is missing."""

    def take_screenshot(name: str) -> None:
        page.wait_for_timeout(1500)  # graph and pictures fade in
        page.screenshot(path=folder / f"{name}.png")

    page.goto(f"{url}/dags/market_daily")
    page.get_by_role("button", name="Dag Docs").click()
    expect(page.get_by_text("KOSPI: prices, headlines and forecast of every session")).to_be_visible()
    take_screenshot("docs")

    page.goto(f"{url}/dags/{RUN}")
    page.get_by_label("Show Graph").first.click()
    page.get_by_label("Expand all task groups").first.click()
    positions = {}
    for task in ORDER:
        node = page.locator(".react-flow").get_by_text(task, exact=True).first
        expect(node).to_be_visible()
        positions[task] = node.bounding_box()["x"]
    assert [positions[task] for task in ORDER] == sorted(positions.values()), (
        f"tasks are not ordered from left to right: {positions}"
    )
    take_screenshot("graph")

    page.goto(f"{url}/dags/{RUN}/tasks/train")
    expect(page.get_by_text("artifact verified").first).to_be_visible()
    expect(page.get_by_text("Out of sample").first).to_be_visible()
    take_screenshot("log")

    page.goto(f"{url}/dags/{RUN}/tasks/plot/details")
    take_screenshot("details")
    page.get_by_role("link", name="Artifact", exact=True).first.click()
    expect(page.get_by_role("heading", name=re.compile("plot, session 2026-01-15"))).to_be_visible()
    picture = page.locator("img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 400
    take_screenshot("artifact")


with sync_playwright() as playwright:
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(TIMEOUT_SECONDS * 1000)
    expect.set_options(timeout=TIMEOUT_SECONDS * 1000)
    pictures = Path(sys.argv[3])
    try:
        log_in(page, sys.argv[1], sys.argv[2])
        visit_pages(page, sys.argv[1], pictures)
    except BaseException:
        page.screenshot(path=pictures / "failed.png")
        raise
    print("passed")
