from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from airflow_steps.artifact_viewer import app, require_access
from airflow_steps.links import artifact_url, make_link_xcoms
from airflow_steps.outcome import StepOutput
from fastapi.testclient import TestClient
from step_contract.commit import Content, commit
from step_contract.store import Store

PICTURE = b"\x89PNG a picture"
DIRECTORY = "plots/symbol=KS11/session=2026-01-15/config=ab12"


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    content = Content({"forecast.png": PICTURE, "rows.bin": b"12"}, rows=0, schema_version=1, facts={"summary": "<b>up</b>"})
    store = Store(f"file://{tmp_path}/artifacts")
    return commit(store, DIRECTORY, step="plot", session=date(2026, 1, 15), inputs={}, content=content).uri


@pytest.fixture
def browser(manifest: str) -> Iterator[TestClient]:
    app.dependency_overrides[require_access] = lambda: None
    yield TestClient(app, follow_redirects=False)
    app.dependency_overrides.clear()


def make_path(manifest: str, name: str = "") -> str:
    return artifact_url(manifest, name).removeprefix("/market")


def test_links_lead_to_page_manifest_and_picture(browser: TestClient, manifest: str) -> None:
    links = make_link_xcoms(StepOutput(manifest, {}, ("forecast.png", "rows.bin")))
    assert list(links) == ["_link_ArtifactLink", "_link_ManifestLink", "_link_PictureLink"]
    page, raw, picture = (browser.get(url.removeprefix("/market")) for url in links.values())
    assert "forecast.png" in page.text and "<img src" in page.text
    assert "&lt;b&gt;up" in page.text and "<b>up" not in page.text
    assert raw.json()["step"] == "plot"
    assert (picture.content, picture.headers["content-type"]) == (PICTURE, "image/png")
    assert list(make_link_xcoms(StepOutput(manifest, {}, ("prices.parquet",)))) == ["_link_ArtifactLink", "_link_ManifestLink"]


def test_links_include_airflows_base_path(manifest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    assert artifact_url(manifest).startswith("/airflow/market/artifacts/plots/")


def test_other_objects_have_no_link_and_no_page(browser: TestClient, manifest: str, tmp_path: Path) -> None:
    assert artifact_url("s3://elsewhere/plots/manifest.json") == ""
    (tmp_path / "manifest.json").write_text("secret")
    for path in ("/artifacts/../", "/artifacts/%2e%2e/", "/artifacts/plots/..%2f..%2f../manifest.json", "/artifacts/none/"):
        assert browser.get(path).status_code in (404, 422)


def test_a_damaged_file_is_not_served(browser: TestClient, manifest: str, tmp_path: Path) -> None:
    [file] = tmp_path.rglob("forecast.png")
    file.write_bytes(b"other")
    response = browser.get(make_path(manifest, "forecast.png"))
    assert response.status_code == 404 and "sha256" in response.text


def test_a_binary_file_is_downloaded(browser: TestClient, manifest: str) -> None:
    response = browser.get(make_path(manifest, "rows.bin"))
    assert response.headers["content-disposition"] == 'attachment; filename="rows.bin"'
    assert response.headers["x-content-type-options"] == "nosniff"


def test_an_anonymous_user_is_redirected_to_the_login(manifest: str) -> None:
    response = TestClient(app, follow_redirects=False).get(make_path(manifest))
    assert response.status_code == 307 and "/api/v2/auth/login?next=" in response.headers["location"]
