from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from airflow_steps.artifact_viewer import allowed, app
from airflow_steps.links import links, page
from fastapi.testclient import TestClient
from step_contract.commit import Content, commit
from step_contract.store import Store

PICTURE = b"\x89PNG a picture"
DIRECTORY = "plots/symbol=KS11/session=2026-01-15/recipe=ab12"


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    content = Content({"forecast.png": PICTURE, "rows.bin": b"12"}, rows=0, schema_version=1, facts={"in_words": "<b>up</b>"})
    store = Store(f"file://{tmp_path}/artifacts")
    return commit(store, DIRECTORY, step="plot", session=date(2026, 1, 15), inputs={}, content=content).uri


@pytest.fixture
def browser(manifest: str) -> Iterator[TestClient]:
    app.dependency_overrides[allowed] = lambda: None
    yield TestClient(app, follow_redirects=False)
    app.dependency_overrides.clear()


def address(manifest: str, name: str = "") -> str:
    return page(manifest, name).removeprefix("/market")


def test_a_steps_links_lead_to_its_page_its_manifest_and_its_picture(browser: TestClient, manifest: str) -> None:
    found = links(manifest, ("forecast.png", "rows.bin"))
    assert list(found) == ["_link_ArtifactLink", "_link_ManifestLink", "_link_PictureLink"]
    shown, raw, picture = (browser.get(one.removeprefix("/market")) for one in found.values())
    assert "forecast.png" in shown.text and "<img src" in shown.text
    assert "&lt;b&gt;up" in shown.text and "<b>up" not in shown.text
    assert raw.json()["step"] == "plot"
    assert (picture.content, picture.headers["content-type"]) == (PICTURE, "image/png")
    assert list(links(manifest, ("prices.parquet",))) == ["_link_ArtifactLink", "_link_ManifestLink"]


def test_links_follow_the_path_that_airflow_is_served_under(manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    assert page(manifest).startswith("/airflow/market/artifacts/plots/")


def test_what_lies_outside_the_deployments_artifacts_has_no_link_and_no_page(
    browser: TestClient, manifest: str, tmp_path: Path
) -> None:
    assert page("s3://elsewhere/plots/manifest.json") == ""
    (tmp_path / "manifest.json").write_text("secret")
    for path in ("/artifacts/../", "/artifacts/%2e%2e/", "/artifacts/plots/..%2f..%2f../manifest.json", "/artifacts/none/"):
        assert browser.get(path).status_code in (404, 422)


def test_a_file_that_is_damaged_is_not_shown(browser: TestClient, manifest: str, tmp_path: Path) -> None:
    [file] = tmp_path.rglob("forecast.png")
    file.write_bytes(b"other")
    answer = browser.get(address(manifest, "forecast.png"))
    assert answer.status_code == 404 and "sha256" in answer.text


def test_a_file_that_no_browser_shows_is_downloaded(browser: TestClient, manifest: str) -> None:
    answer = browser.get(address(manifest, "rows.bin"))
    assert answer.headers["content-disposition"] == 'attachment; filename="rows.bin"'
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_who_is_not_logged_in_is_sent_to_do_so(manifest: str) -> None:
    answer = TestClient(app, follow_redirects=False).get(address(manifest))
    assert answer.status_code == 307 and "/api/v2/auth/login?next=" in answer.headers["location"]
