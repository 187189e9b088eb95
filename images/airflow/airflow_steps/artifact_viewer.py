"""Pages of Airflow's API server that show artifacts to users who may read the pipeline's XComs."""

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

from airflow_steps.links import URL_PREFIX
from airflow_steps.settings import Settings

DAG_ID = "market_daily"
# Other files are downloaded.
INLINE_TYPES = {".png": "image/png", ".json": "application/json"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}img{max-width:100%}"
    "td{padding:.1rem 1rem .1rem 0;vertical-align:top;overflow-wrap:anywhere}"
)

require_access = requires_access_dag("GET", DagAccessEntity.XCOM, DAG_ID)
app = FastAPI(title="Artifacts of market-daily", dependencies=[Depends(require_access)], openapi_url=None)
Directory = Annotated[str, Path(pattern=r"^[A-Za-z0-9_=.:+-]+(/[A-Za-z0-9_=.:+-]+)*$")]


def _load_artifact(directory: str) -> tuple[Store, Manifest]:
    root = Settings.read().artifacts
    if not root or ".." in directory.split("/"):
        raise HTTPException(404, "artifact not found")
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
        return RedirectResponse(f"{_get_base_path(request)}/api/v2/auth/login?next={quote(str(request.url))}")
    return Response(f"{error.detail}\n", error.status_code, HEADERS, "text/plain; charset=utf-8")


def _get_base_path(request: Request) -> str:
    root_path: str = request.scope.get("root_path", "")
    return root_path.removesuffix(URL_PREFIX).rstrip("/")


@app.get("/artifacts/{directory:path}/")
def show_artifact(directory: Directory) -> Response:
    """Return the page about an artifact: its files, facts, inputs and picture."""
    store, manifest = _load_artifact(directory)
    return HTMLResponse(render_page(store.uri(directory), manifest), headers=HEADERS)


@app.get("/artifacts/{directory:path}/{name}")
def get_file(directory: Directory, name: str) -> Response:
    """Return a file of an artifact, verified against the manifest, or the manifest itself."""
    store, manifest = _load_artifact(directory)
    media_type = INLINE_TYPES.get(name[name.rfind(".") :])
    headers = HEADERS | ({} if media_type else {"Content-Disposition": f'attachment; filename="{quote(name)}"'})
    if name == MANIFEST:
        return Response(store.read(f"{directory}/{MANIFEST}"), headers=headers, media_type="application/json")
    try:
        file = manifest.file(name)
        path = f"{directory}/{file.path}"
        data = check_content(store.uri(path), file, store.read(path))
    except StepError as error:
        raise HTTPException(404, str(error)) from error
    return Response(data, headers=headers, media_type=media_type or "application/octet-stream")


def render_page(uri: str, manifest: Manifest) -> str:
    """Return the HTML of the page about an artifact."""

    def render_table(rows: dict[str, Any]) -> str:
        cells = (f"<tr><td>{html.escape(str(key))}<td>{html.escape(str(value))}" for key, value in rows.items())
        return f"<table>{''.join(cells)}</table>"

    files = "".join(
        f'<tr><td><a href="{quote(file.name)}">{html.escape(file.name)}</a><td>{file.size:,} bytes<td>{file.sha256}'
        for file in manifest.files
    )
    pictures = "".join(
        f'<p><img src="{quote(file.name)}" alt="{html.escape(file.name)}">'
        for file in manifest.files
        if file.name.endswith(".png")
    )
    origin = {"step": manifest.step, "session": manifest.session, "rows": manifest.rows, "created": manifest.created}
    origin |= {"image": manifest.image, "git commit": manifest.commit}
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{html.escape(manifest.step)} {manifest.session}</title><style>{STYLE}</style>"
        f"<h1>{html.escape(manifest.step)}, session {manifest.session}</h1><p><code>{html.escape(uri)}</code>"
        f"{pictures}<h2>Files</h2><table>{files}</table><p><a href={MANIFEST}>{MANIFEST}</a>"
        f"<h2>Facts</h2>{render_table(dict(manifest.facts))}<h2>Origin</h2>{render_table(origin)}"
        f"<h2>Inputs</h2>{render_table(dict(manifest.inputs))}"
    )
