"""Artifacts in the browser: pages of Airflow's own server, for whoever may see the pipeline's XComs there."""

from __future__ import annotations

import html
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Path, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from step_contract.commit import load
from step_contract.errors import StepError
from step_contract.manifest import Manifest, check_content
from step_contract.paths import MANIFEST
from step_contract.store import Store

from airflow_steps.settings import Settings

DAG = "market_daily"
SHOWN = {".png": "image/png", ".json": "application/json"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}"
    "td{padding:.1rem 1rem .1rem 0;vertical-align:top;overflow-wrap:anywhere}"
)

allowed = requires_access_dag("GET", DagAccessEntity.XCOM, DAG)
app = FastAPI(title="Artifacts of market-daily", dependencies=[Depends(allowed)], openapi_url=None)
Directory = Annotated[str, Path(pattern=r"^[A-Za-z0-9_=.:+-]+(/[A-Za-z0-9_=.:+-]+)*$")]


def _artifact(directory: str) -> tuple[Store, Manifest]:
    root = Settings.read().artifacts
    if not root or ".." in directory.split("/"):
        raise HTTPException(404, "there is no such artifact")
    store = Store(root)
    try:
        manifest = load(store, directory)
    except StepError as error:
        raise HTTPException(502, str(error)) from error
    if manifest is None:
        raise HTTPException(404, f"{store.uri(directory)} has no manifest: there is no such artifact")
    return store, manifest


@app.exception_handler(HTTPException)
def told(request: Request, error: HTTPException) -> Response:
    """The error in a sentence; who is not logged in is sent to do so."""
    if error.status_code == 401:
        return RedirectResponse(f"{_base(request)}/api/v2/auth/login?next={quote(str(request.url))}")
    return Response(f"{error.detail}\n", error.status_code, HEADERS, "text/plain; charset=utf-8")


def _base(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.removesuffix("/market").rstrip("/")


@app.get("/artifacts/{directory:path}/")
def artifact(directory: Directory) -> Response:
    """The page about an artifact: its files, what it was made from, its picture."""
    store, manifest = _artifact(directory)
    return HTMLResponse(rendered(store.uri(directory), manifest), headers=HEADERS)


@app.get("/artifacts/{directory:path}/{name}")
def file(directory: Directory, name: str) -> Response:
    """A file of an artifact, checked against its manifest; or the manifest."""
    store, manifest = _artifact(directory)
    kind = SHOWN.get(name[name.rfind(".") :])
    headers = HEADERS | ({} if kind else {"Content-Disposition": f'attachment; filename="{quote(name)}"'})
    if name == MANIFEST:
        return Response(store.read(f"{directory}/{MANIFEST}"), headers=headers, media_type="application/json")
    try:
        entry = manifest.file(name)
        path = f"{directory}/{entry.path}"
        data = check_content(store.uri(path), entry, store.read(path))
    except StepError as error:
        raise HTTPException(404, str(error)) from error
    return Response(data, headers=headers, media_type=kind or "application/octet-stream")


def rendered(uri: str, manifest: Manifest) -> str:
    """The page's HTML."""

    def table(rows: dict[str, Any]) -> str:
        cells = (f"<tr><td>{html.escape(str(key))}<td>{html.escape(str(value))}" for key, value in rows.items())
        return f"<table>{''.join(cells)}</table>"

    files = "".join(
        f'<tr><td><a href="{quote(one.name)}">{html.escape(one.name)}</a><td>{one.size:,} bytes<td>{one.sha256}'
        for one in manifest.files
    )
    pictures = "".join(
        f'<p><img src="{quote(one.name)}" alt="{html.escape(one.name)}">' for one in manifest.files if one.name.endswith(".png")
    )
    made = {"step": manifest.step, "session": manifest.session, "rows": manifest.rows, "made at": manifest.created}
    made |= {"image": manifest.image, "git commit": manifest.commit}
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(manifest.step)} {manifest.session}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(manifest.step)}, session {manifest.session}</h1><p><code>{html.escape(uri)}</code>"
        f"{pictures}<h2>Files</h2><table>{files}</table><p><a href={MANIFEST}>{MANIFEST}</a>"
        f"<h2>What it says</h2>{table(dict(manifest.facts))}<h2>How it was made</h2>{table(made)}"
        f"<h2>From what</h2>{table(dict(manifest.inputs))}"
    )
