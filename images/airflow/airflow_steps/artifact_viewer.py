"""Pages of Airflow's API server that show artifacts to users who may read the pipeline's XComs."""

from __future__ import annotations

import html
from itertools import chain
from typing import Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from step_contract.commit import load, stream_file
from step_contract.errors import DataError, StepError
from step_contract.facts import HeadlinesFacts
from step_contract.lineage.sources import Source, SourceList
from step_contract.manifest import Manifest, check_path
from step_contract.paths import MANIFEST
from step_contract.store import Store

from airflow_steps.airflow_internals.api_server import require_xcom_access
from airflow_steps.links import URL_PREFIX, artifact_url
from airflow_steps.settings import Settings

DAG_ID = "market_daily"
# Other files are downloaded. A PNG is one by its first bytes: a step could give any name to HTML or SVG.
INLINE_TYPES = {".png": "image/png", ".json": "application/json"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The pages share Airflow's origin and show what steps wrote, so they may do nothing: even markup that got past the escaping
# could not run scripts, send forms, navigate by itself or be framed elsewhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# The picture is requested with the user's cookie: a sandboxed page sends none without allow-same-origin.
PAGE_HEADERS = HEADERS | {
    "Content-Security-Policy": f"{POLICY}; img-src 'self'; sandbox allow-same-origin allow-downloads allow-popups"
}
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}"
    "p{overflow-wrap:anywhere}td{padding:.1rem 1rem .1rem 0;vertical-align:top;overflow-wrap:anywhere}"
)

require_access = require_xcom_access(DAG_ID)
app = FastAPI(title="Artifacts of market-daily", dependencies=[Depends(require_access)], openapi_url=None)


def _load_artifact(directory: str) -> tuple[Store, Manifest]:
    root = Settings.read().artifacts
    try:
        check_path(directory)
    except ValueError:
        raise HTTPException(404, "artifact not found") from None
    if not root:
        raise HTTPException(404, "artifact not found: ARTIFACTS is not set")
    store = Store(root)
    try:
        manifest = load(store, directory)
    except StepError as error:
        raise HTTPException(502, str(error)) from error
    if manifest is None:
        raise HTTPException(404, f"artifact not found: {store.uri(directory)} has no manifest")
    return store, manifest


@app.exception_handler(HTTPException)
def handle_error(request: Request, error: HTTPException) -> Response:
    """Return the error as plain text; redirect a user who is not logged in to the login page."""
    if error.status_code == 401:
        # A path, because the host in the request's URL is the client's claim.
        path = "/" + request.scope["path"].lstrip("/\\")
        return RedirectResponse(f"{_get_base_path(request)}/api/v2/auth/login?next={quote(path, safe='')}")
    return Response(f"{error.detail}\n", error.status_code, HEADERS, "text/plain; charset=utf-8")


def _get_base_path(request: Request) -> str:
    root_path: str = request.scope.get("root_path", "")
    return root_path.removesuffix(URL_PREFIX).rstrip("/")


@app.get("/artifacts/{directory:path}/")
def show_artifact(directory: str) -> Response:
    """Return the page about an artifact: its files, facts, inputs and picture."""
    store, manifest = _load_artifact(directory)
    return HTMLResponse(render_page(store.uri(directory), manifest), headers=PAGE_HEADERS)


@app.get("/artifacts/{directory:path}/{name}")
def get_file(directory: str, name: str) -> Response:
    """Return a file of an artifact, verified against the manifest, or the manifest itself.

    A file of one chunk is verified before it is sent. A larger one is sent while it is verified, so that the server holds a few
    chunks of it at most and reads it once; if it was altered, the connection is closed before its last chunk, and the browser
    reports a failed download.
    """
    store, manifest = _load_artifact(directory)
    if name == MANIFEST:
        return Response(manifest.to_json(), headers=HEADERS, media_type="application/json")
    try:
        file = manifest.file(name)
        chunks = stream_file(store, directory, file)
        first = next(chunks, b"")
    except DataError as error:
        raise HTTPException(404, str(error)) from error
    except StepError as error:
        raise HTTPException(502, str(error)) from error
    media_type = _get_inline_type(file.name, first)
    headers = HEADERS | {"Content-Length": str(file.size)}
    if media_type is None:
        # check_path has excluded everything that would need quoting here.
        headers |= {"Content-Disposition": f'attachment; filename="{file.name}"'}
    return StreamingResponse(chain([first], chunks), headers=headers, media_type=media_type or "application/octet-stream")


def _get_inline_type(name: str, start: bytes) -> str | None:
    """Return the media type of a file that a browser may show; None if it must be downloaded."""
    media_type = INLINE_TYPES.get(name[name.rfind(".") :])
    return None if media_type == "image/png" and not start.startswith(PNG_SIGNATURE) else media_type


def render_page(uri: str, manifest: Manifest) -> str:
    """Return the HTML of the page about an artifact."""

    def render_table(rows: dict[str, Any]) -> str:
        cells = (f"<tr><td>{html.escape(str(key))}<td>{html.escape(str(value))}" for key, value in rows.items())
        return f"<table>{''.join(cells)}</table>"

    files = "".join(
        f'<tr><td><a href="./{quote(file.name)}">{html.escape(file.name)}</a>'
        f"<td>{file.size:,} bytes<td>{html.escape(file.sha256)}"
        for file in manifest.files
    )
    pictures = "".join(
        f'<p><img src="./{quote(file.name)}" alt="{html.escape(file.name)}">'
        for file in manifest.files
        if file.name.endswith(".png")
    )
    headlines = HeadlinesFacts.from_facts(manifest.facts)
    summary = f"<p>{html.escape(headlines.describe())}" if headlines else ""
    origin = {"step": manifest.step, "session": manifest.session, "rows": manifest.rows, "created": manifest.created}
    origin |= {"code version": manifest.code_version, "schema version": manifest.schema_version}
    origin |= {"reason": manifest.reason} if manifest.reason else {}
    origin |= {"image": manifest.image, "git commit": manifest.commit}
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(manifest.step)} {manifest.session}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(manifest.step)}, session {manifest.session}</h1><p><code>{html.escape(uri)}</code>"
        f"{summary}{pictures}<h2>Files</h2><table>{files}</table><p><a href='./{MANIFEST}'>{MANIFEST}</a>"
        f"<h2>Facts</h2>{render_table(dict(manifest.facts))}<h2>Origin</h2>{render_table(origin)}"
        f"<h2>Inputs</h2>{render_table(dict(manifest.inputs))}"
        f"<h2>Sources</h2>{''.join(map(render_source, manifest.sources)) or '<p>none recorded'}"
    )


def render_source(entry: Source | SourceList) -> str:
    """Return the HTML of what an artifact was made from: a link if it is an artifact, text if it is a file elsewhere."""
    role = html.escape(entry.role)
    if isinstance(entry, SourceList):
        name = html.escape(entry.file)
        return f'<p>{role}: {entry.count:,} artifacts, listed in <a href="./{quote(entry.file)}">{name}</a>'
    uri, url = html.escape(entry.uri), artifact_url(entry.uri)
    shown = f'<a href="{html.escape(url)}">{uri}</a>' if url else uri
    return f"<p>{role}: {shown}<br><small>sha256 {html.escape(entry.sha256)}</small>"
