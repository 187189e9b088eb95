"""Looks at the UI as a newcomer would, and keeps what it sees as pictures.

Login, the documentation, the graph, a log, the links, and what one of them leads to.

python look.py http://127.0.0.1:8080 PASSWORD FOLDER
"""

import re
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

RUN = "market_daily/runs/session__2026-01-15"
ORDER = ("decide", "branch", "fetch_prices", "fetch_headlines", "is_training_day", "train", "plot")
SECONDS = 60


def log_in(page: Page, url: str, password: str) -> None:
    """Logs in as admin."""
    page.goto(url)
    page.locator("input[name=username]").fill("admin")
    page.locator("input[name=password]").fill(password)
    page.locator("input[type=submit], button[type=submit]").first.click()
    expect(page.get_by_role("link", name=re.compile("Dags", re.IGNORECASE)).first).to_be_visible()


def look(page: Page, url: str, folder: Path) -> None:
    """Opens what a newcomer opens, and says where something is missing."""

    def keep(name: str) -> None:
        page.wait_for_timeout(1500)  # the graph and the pictures fade in
        page.screenshot(path=folder / f"{name}.png")

    page.goto(f"{url}/dags/market_daily")
    page.get_by_role("button", name="Dag Docs").click()
    expect(page.get_by_text("KOSPI: prices, headlines and forecast of every session")).to_be_visible()
    keep("docs")

    page.goto(f"{url}/dags/{RUN}")
    page.get_by_label("Show Graph").first.click()
    page.get_by_label("Expand all task groups").first.click()
    places = {}
    for task in ORDER:
        node = page.locator(".react-flow").get_by_text(task, exact=True).first
        expect(node).to_be_visible()
        places[task] = node.bounding_box()["x"]
    assert [places[task] for task in ORDER] == sorted(places.values()), f"the graph does not read from left to right: {places}"
    keep("graph")

    page.goto(f"{url}/dags/{RUN}/tasks/train")
    expect(page.get_by_text("artifact verified").first).to_be_visible()
    expect(page.get_by_text("Out of sample").first).to_be_visible()
    keep("log")

    page.goto(f"{url}/dags/{RUN}/tasks/plot/details")
    keep("details")
    page.get_by_role("link", name="Artifact", exact=True).first.click()
    expect(page.get_by_role("heading", name=re.compile("plot, session 2026-01-15"))).to_be_visible()
    picture = page.locator("img").first
    expect(picture).to_be_visible()
    assert picture.evaluate("one => one.naturalWidth") > 400
    keep("artifact")


with sync_playwright() as play:
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(SECONDS * 1000)
    expect.set_options(timeout=SECONDS * 1000)
    pictures = Path(sys.argv[3])
    try:
        log_in(page, sys.argv[1], sys.argv[2])
        look(page, sys.argv[1], pictures)
    except BaseException:
        page.screenshot(path=pictures / "failed.png")
        raise
    print("login, run, log and link: seen")
