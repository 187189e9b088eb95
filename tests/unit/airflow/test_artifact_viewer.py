from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from airflow_steps.artifact_viewer import app, require_access
from airflow_steps.links import artifact_url, make_link_xcoms
from airflow_steps.outcome import StepOutput
from fastapi.testclient import TestClient
from step_contract.commit import Content, commit
from step_contract.errors import DataError
from step_contract.facts import HeadlinesFacts
from step_contract.lineage.sources import Source
from step_contract.manifest import canonical, digest
from step_contract.store import CHUNK_BYTES, Store

from ..page_elements import PageElements

PICTURE = b"\x89PNG\r\n\x1a\n a picture"
DIRECTORY = "plots/symbol=KS11/session=2026-01-15/config=ab12"


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ARTIFACTS", f"file://{tmp_path}/artifacts")
    content = Content({"forecast.png": PICTURE, "rows.bin": b"12"}, rows=0, schema_version=1, facts={"summary": "<b>up</b>"})
    store = Store(f"file://{tmp_path}/artifacts")
    return commit(store, DIRECTORY, step="plot", session=date(2026, 1, 15), inputs={}, content=content).uri


@pytest.fixture
def store(manifest: str, tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/artifacts")


@pytest.fixture
def browser(manifest: str) -> Iterator[TestClient]:
    app.dependency_overrides[require_access] = lambda: None
    yield TestClient(app, follow_redirects=False)
    app.dependency_overrides.clear()


def publish(store: Store, contents: dict[str, bytes], **fields: Any) -> str:
    """Write an artifact as a hostile step would, without the checks of `commit`; return its path."""
    content: dict[str, Any] = {
        "manifest": 1,
        "step": "plot",
        "session": "2026-01-15",
        "inputs": {},
        "files": [{"path": f"a/{name}", "sha256": digest(data), "size": len(data)} for name, data in contents.items()],
        "rows": 0,
        "schema_version": 1,
        "facts": {},
        "created": "2026-01-15T10:00:00+00:00",
        "image": None,
        "commit": None,
    } | fields
    for name, data in contents.items():
        store.write(f"hostile/a/{name}", data)
    store.write("hostile/manifest.json", json.dumps(content | {"sha256": digest(canonical(content))}).encode())
    return "/artifacts/hostile/"


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


def test_a_page_of_headlines_says_whether_they_are_available(browser: TestClient, store: Store) -> None:
    facts = HeadlinesFacts("2020-01-15", 0, 2, availability="unavailable", uncovered=2, incomplete_feeds="a: <its> oldest")
    page = browser.get(publish(store, {"feeds.json": b"{}"}, step="fetch-headlines", facts=facts.to_facts())).text
    assert "<p>headlines: not available for this session" in page and "a: &lt;its&gt; oldest" in page


def test_a_page_links_the_artifacts_that_it_was_made_from(browser: TestClient, store: Store) -> None:
    prices = [
        Source("prices", store.uri(f"prices/symbol=KS11/session=2026-01-{n:02}/manifest.json"), "0" * 64) for n in (14, 15)
    ]
    many = [
        Source("forecasts", store.uri(f"forecasts/session=2026-01-15/feeds=a{n}/manifest.json"), "0" * 64) for n in range(200)
    ]
    feed = Source("feed", "https://host/feed.xml", "1" * 64)
    content = Content({}, rows=0, schema_version=1, facts={}, sources=[*prices, feed, *many])
    uri = commit(store, "models/a", step="train", session=date(2026, 1, 15), inputs={}, content=content).uri
    page = browser.get(make_path(uri)).text
    for source in prices:
        assert f'<a href="{artifact_url(source.uri)}">{source.uri}</a>' in page
    assert "feed: https://host/feed.xml<br><small>sha256 1111" in page
    assert 'forecasts: 200 artifacts, listed in <a href="./forecasts.sha256">' in page
    assert b"forecasts/session=2026-01-15/feeds=a199" in browser.get(make_path(uri, "forecasts.sha256")).content


def test_a_hostile_source_is_text(browser: TestClient, store: Store) -> None:
    uri = "https://evil.example/<script>alert(1)</script>"
    source = {"role": "feed", "uri": uri, "sha256": "0" * 64}
    page = browser.get(publish(store, {"a.png": PICTURE}, sources=[source])).text
    assert "evil.example/&lt;script&gt;" in page and "<script>" not in page and "href='https" not in page


HOSTILE_TEXTS = [
    "<form action=//evil.example><button>Log in",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "\" onload=alert(1) x='",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
]


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_no_text_of_a_manifest_becomes_markup(browser: TestClient, store: Store, text: str) -> None:
    fields = {"step": text, "image": text, "commit": text, "facts": {text: text}, "inputs": {text: text}}
    page = PageElements(browser.get(publish(store, {"a.png": PICTURE}, **fields)).text)
    allowed = {"html", "meta", "title", "style", "h1", "h2", "p", "code", "img", "table", "tr", "td", "a"}
    assert {tag for tag, _ in page.elements} <= allowed
    attributes = {name for tag, attributes in page.elements for name in attributes}
    assert attributes <= {"lang", "charset", "name", "content", "href", "src", "alt"}
    assert [values["href"] for tag, values in page.elements if tag == "a"] == ["./a.png", "./manifest.json"]


@pytest.mark.parametrize(
    "name", ["..", "//evil.example", "javascript:alert(1)", "a\r\nSet-Cookie: a=b", 'a"; filename="b', "a.png<b>", "é"]
)
def test_an_artifact_with_a_hostile_file_name_has_no_page(browser: TestClient, store: Store, name: str) -> None:
    files = [{"path": f"a/{name}", "sha256": "0" * 64, "size": 1}]
    response = browser.get(publish(store, {}, files=files))
    assert response.status_code == 502 and response.headers["content-type"].startswith("text/plain")
    response = browser.get("/artifacts/hostile/" + "".join(f"%{byte:02x}" for byte in name.encode()))
    assert response.status_code in (404, 502) and "content-disposition" not in response.headers
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("digest", ["<form action=//evil.example>", "0" * 63, "A" * 64])
def test_an_artifact_whose_digest_is_none_has_no_page(browser: TestClient, store: Store, digest: str) -> None:
    files = [{"path": "a/a.png", "sha256": digest, "size": 1}]
    response = browser.get(publish(store, {}, files=files))
    assert response.status_code == 502 and response.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["", "forecast.png", "rows.bin", "manifest.json", "none"])
def test_no_response_may_load_scripts_submit_forms_or_be_framed(browser: TestClient, manifest: str, path: str) -> None:
    headers = browser.get(make_path(manifest, path)).headers
    directives = [directive.strip() for directive in headers["content-security-policy"].split(";")]
    assert {"default-src 'none'", "form-action 'none'", "base-uri 'none'", "frame-ancestors 'self'"} <= set(directives)
    assert any(directive.startswith("sandbox") and "allow-scripts" not in directive for directive in directives)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("data", [b"<html><script>alert(1)</script>", b"<svg onload=alert(1)>", b"", b"\x89PNG", b"GIF89a"])
def test_what_is_named_png_but_is_none_is_downloaded(browser: TestClient, store: Store, data: bytes) -> None:
    response = browser.get(publish(store, {"a.png": data}) + "a.png")
    assert (response.status_code, response.content) == (200, data)
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == 'attachment; filename="a.png"'


@pytest.mark.parametrize("name", ["a.html", "a.svg", "a.js", "a.PNG", "a.txt", "png", "a."])
def test_other_types_are_downloaded(browser: TestClient, store: Store, name: str) -> None:
    response = browser.get(publish(store, {name: PICTURE}) + name)
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith("attachment")


def test_json_is_shown_as_json(browser: TestClient, store: Store) -> None:
    response = browser.get(publish(store, {"a.json": b'{"a": 1}'}) + "a.json")
    assert (response.json(), response.headers["content-type"]) == ({"a": 1}, "application/json")


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 1])
def test_a_file_of_any_size_is_sent_whole_with_its_length(browser: TestClient, store: Store, size: int) -> None:
    data = os.urandom(size)
    response = browser.get(publish(store, {"a.bin": data}) + "a.bin")
    assert response.content == data and response.headers["content-length"] == str(size)


def test_a_large_file_that_was_altered_is_never_sent_whole(browser: TestClient, store: Store) -> None:
    path, data = publish(store, {"a.bin": bytes(2 * CHUNK_BYTES)}), bytearray(2 * CHUNK_BYTES)
    data[-1] = 1
    store.write("hostile/a/a.bin", bytes(data))
    received = 0
    # The server closes the connection before Content-Length bytes, which a browser reports as a failed download.
    with pytest.raises(DataError, match="altered"), browser.stream("GET", f"{path}a.bin") as response:
        for chunk in response.iter_raw():
            received += len(chunk)
    assert received < len(data)


DOWNLOAD = """
import resource, sys
from airflow_steps.artifact_viewer import get_file
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
async def drain(response):
    return sum([len(chunk) async for chunk in response.body_iterator])
import asyncio
asyncio.run(drain(get_file("small", "a.bin")))
before = peak()
print(asyncio.run(drain(get_file("large", "a.bin"))), peak() - before)
"""


def test_a_download_of_300_mib_needs_constant_memory(store: Store, tmp_path: Path) -> None:
    size = 300 * 2**20
    for name, length in (("small", 1), ("large", size)):
        total = sha256()
        for _ in range(length // 2**20 or 1):
            total.update(bytes(min(length, 2**20)))
        path = publish(store, {"a.bin": b""}, files=[{"path": "a/a.bin", "sha256": total.hexdigest(), "size": length}])
        folder = tmp_path / "artifacts" / path.split("/")[2]
        os.truncate(folder / "a" / "a.bin", length)
        folder.rename(folder.with_name(name))
    ran = subprocess.run([sys.executable, "-c", DOWNLOAD], stdout=subprocess.PIPE, check=True, timeout=120)
    sent, growth = (int(word) for word in ran.stdout.split()[-2:])
    assert sent == size and growth < 64 * 2**20


@pytest.mark.parametrize(
    "directory", ["x/../plots", "../plots", "./plots", "plots//a", "a b", "a%2fb", "a?b", "é", "javascript:x"]
)
def test_a_manifest_whose_path_a_browser_would_change_has_no_link(manifest: str, store: Store, directory: str) -> None:
    assert artifact_url(f"{store.root}/{directory}/manifest.json") == ""


def test_a_root_that_begins_like_the_deployments_has_no_link(manifest: str, store: Store) -> None:
    assert artifact_url(f"{store.root}-other/plots/manifest.json") == ""
    assert artifact_url(f"{store.root}/plots/other.json") == ""


def test_the_login_returns_to_this_server_only(manifest: str) -> None:
    client = TestClient(app, follow_redirects=False, base_url="http://evil.example")
    response = client.get(make_path(manifest), params={"a": "b&next=//evil.example"})
    assert response.headers["location"].startswith("/api/v2/auth/login?next=%2F")
    assert "evil.example" not in response.headers["location"].partition("%3Fa%3D")[0]
    response = client.get("//evil.example/artifacts/a/")
    assert not response.headers.get("location", "").partition("next=")[2].startswith("%2F%2F")


def test_an_anonymous_user_is_redirected_to_the_login(manifest: str) -> None:
    response = TestClient(app, follow_redirects=False).get(make_path(manifest))
    assert response.status_code == 307 and "/api/v2/auth/login?next=" in response.headers["location"]
