"""The HTTP server of a simulator.

    /api/METHOD      Slack's Web API
    /upload/ID       a file's bytes
    /, /thread       the page of a channel, of a thread; /files/ID/NAME is a file
    /control/faults  POST: a JSON list of faults to inject, each with the fields of `simulator.Fault`
    /control/down    POST: true closes every connection of a client without a response, false ends that

It is written on http.server because a web framework cannot close a connection without a response.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from slack_simulator import page, web_api
from slack_simulator.simulator import Simulator
from slack_simulator.workspace import DEFAULT_CHANNELS, Workspace

HTML, JSON, TEXT = "text/html; charset=utf-8", "application/json; charset=utf-8", "text/plain; charset=utf-8"
# The page has no scripts; this keeps a message from adding one.
CONTENT_SECURITY_POLICY = "default-src 'none'; img-src * data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Handler(BaseHTTPRequestHandler):
    """Handles one connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Route a request."""
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = dict(parse_qsl(url.query))
        first, _, rest = unquote(url.path).strip("/").partition("/")
        if first == "api":
            self.handle_call(rest, query, body)
        elif first == "upload":
            self.handle_upload(rest, body)
        elif first == "control":
            self.handle_control(rest, body)
        else:
            self.handle_page(first, rest, query)

    do_POST = do_GET

    def handle_call(self, method: str, query: dict[str, str], body: bytes) -> None:
        """Respond to a call of the Web API, whose arguments are in the query and in a form or JSON object."""
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        form = json.loads(body or b"{}") if is_json else dict(parse_qsl(body.decode(), keep_blank_values=True))
        simulator, arguments = self.server.simulator, query | form
        token = self.headers.get("Authorization", "").removeprefix("Bearer ").strip() or str(arguments.get("token") or "")
        call = web_api.Call(simulator.workspace, arguments, f"http://{self.headers['Host']}", simulator.scopes)
        self.respond(method, arguments, lambda: (200, web_api.execute(call, method, token)))

    def handle_upload(self, file_id: str, content: bytes) -> None:
        """Respond to the upload of a file."""
        workspace = self.server.simulator.workspace

        def upload() -> tuple[int, web_api.Response]:
            with workspace.lock:
                file = workspace.files.get(file_id)
                if not file or len(content) != file.length:
                    return 400, {"ok": False, "error": "file_not_found" if not file else "invalid_length"}
                workspace.upload(file, content)
            return 200, {"ok": True}

        self.respond("upload", {"file": file_id, "length": len(content)}, upload)

    def respond(self, method: str, arguments: dict[str, Any], execute: Callable[[], tuple[int, web_api.Response]]) -> None:
        """Record a call, execute it and respond, unless a fault prevents that."""
        simulator = self.server.simulator
        call = simulator.record(method, arguments)
        if simulator.down:
            self.close_connection = True
            return
        fault = simulator.take_fault(method)
        headers = {"x-oauth-scopes": ",".join(simulator.scopes)}
        if fault and (fault.status or fault.error):
            is_limited = fault.status == HTTPStatus.TOO_MANY_REQUESTS
            error = fault.error or ("ratelimited" if is_limited else "internal_error")
            status, response = fault.status or HTTPStatus.OK, {"ok": False, "error": error}
            headers |= {"Retry-After": str(fault.retry_after)} if is_limited else {}
        else:
            status, response = execute()
        call["error"] = response.get("error")
        if fault and fault.drop:
            self.close_connection = True
            return
        if fault:
            simulator.stopping.wait(fault.hang)
        call["status"] = status
        self.send(status, json.dumps(response).encode(), JSON, headers)

    def handle_control(self, control: str, body: bytes) -> None:
        """Inject faults."""
        simulator = self.server.simulator
        try:
            value = json.loads(body)
            if control == "faults" and isinstance(value, list):
                simulator.faults(*value)
            elif control == "down" and isinstance(value, bool):
                simulator.down = value
            else:
                raise ValueError("invalid request: POST a list to /control/faults, or true or false to /control/down")
        except ValueError as error:
            return self.send(HTTPStatus.BAD_REQUEST, f"{error}\n".encode(), TEXT)
        self.send(HTTPStatus.OK, b'{"ok": true}', JSON)

    def handle_page(self, first: str, rest: str, query: dict[str, str]) -> None:
        """Respond with a page or a file."""
        workspace = self.server.simulator.workspace
        with workspace.lock:
            content = workspace.content(rest.partition("/")[0]) if first == "files" else None
            html = page.render_page(workspace, query.get("channel", ""), live=True) if not first else ""
            html = page.render_thread(workspace, query.get("ts", "")) if first == "thread" else html
        if content is not None:
            self.send(HTTPStatus.OK, content, page.picture_type(content) or "application/octet-stream")
        elif html:
            self.send(HTTPStatus.OK, html.encode(errors="replace"), HTML)
        else:
            self.send(HTTPStatus.NOT_FOUND, b"not found: the page is at /\n", TEXT)

    def send(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        """Send a response."""
        self.send_response(status)
        fixed = {"Content-Type": content_type, "Content-Length": str(len(body)), "X-Content-Type-Options": "nosniff"}
        for name, value in (fixed | {"Content-Security-Policy": CONTENT_SECURITY_POLICY} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Log nothing: a page that is open requests itself again and again."""


class Server(ThreadingHTTPServer):
    """The server of one simulator."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, workspace: Workspace) -> None:
        super().__init__((host, port), Handler)
        shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104
        self.simulator = Simulator(workspace, page_url=f"http://{shown}:{self.server_address[1]}/")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of an error, unless the client closed the connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Stop `serve_forever` and every wait of a fault."""
        self.simulator.stopping.set()
        self.shutdown()


@contextmanager
def run_simulator(*, folder: Path | None = None, channels: tuple[str, ...] = DEFAULT_CHANNELS) -> Iterator[Simulator]:
    """Run a simulator in a thread, on a free port of this machine."""
    with Server("127.0.0.1", 0, Workspace(folder, channels)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.simulator
        finally:
            server.stop()
            thread.join()
