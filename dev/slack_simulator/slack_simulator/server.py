"""The stand-in as an HTTP server: Slack's methods below /api/, the page, and /control/ for whoever tests against it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from slack_simulator import bodies, page
from slack_simulator.call import Answer, Call
from slack_simulator.faults import Fault, FaultWrong, take
from slack_simulator.simulator import Simulator
from slack_simulator.web_api import answer
from slack_simulator.workspace import DEFAULT_CHANNELS, Workspace

HTML = "text/html; charset=utf-8"
# Nothing that was sent may run: the page has no scripts, and no browser may be talked into one.
POLICY = "default-src 'none'; img-src * data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
MOST_BYTES = 1 << 30


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Any request."""
        asked = urlsplit(self.path)
        length = self.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
            self.close_connection = True
            return self.send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"no body of this length is read", "text/plain")
        body = self.rfile.read(int(length))
        query = {name: values[-1] for name, values in parse_qs(asked.query).items()}
        first, *rest = unquote(asked.path).strip("/").split("/")
        if first == "api":
            self.api("/".join(rest), query, body)
        elif first == "upload":
            self.upload(rest[-1] if rest else "", body)
        elif first == "control":
            self.control("/".join(rest), body)
        else:
            self.page(first, rest, query)

    do_POST = do_PUT = do_DELETE = do_GET

    def api(self, method: str, query: Mapping[str, str], body: bytes) -> None:
        """A call of one of Slack's methods."""
        state = self.server.state
        arguments = dict(query) | (read := bodies.arguments(self.headers.get("Content-Type", ""), body) or {})
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else str(arguments.get("token") or "")

        def work() -> Answer:
            if read is None:
                return {"ok": False, "error": "invalid_json"}
            call = Call(state.workspace, arguments, self.address(), state.public or self.address())
            return answer(call, method, token, state.scopes)

        self.answer_call(method, arguments, work)

    def upload(self, file_id: str, body: bytes) -> None:
        """The bytes of a file that was announced."""
        workspace = self.server.state.workspace
        content = bodies.uploaded(self.headers.get("Content-Type", ""), body)

        def work() -> Answer:
            with workspace.lock:
                file = workspace.files.get(file_id)
                if not file or file.shared:
                    return {"ok": False, "error": "file_not_found", "status": 404}
                if len(content) != file.length:
                    return {"ok": False, "error": f"{len(content)} bytes, not {file.length}", "status": 400}
                file.uploaded = True
                workspace.keep_file(file, content)
            return {"ok": True, "size": file.length}

        self.answer_call("upload", {"file": file_id, "length": len(content)}, work)

    def answer_call(self, method: str, arguments: dict[str, Any], work: Any) -> None:
        """Does the work and answers, unless a fault says otherwise; notes the request."""
        state = self.server.state
        entry = state.record(method, arguments)
        if state.down:
            return self.hang_up()
        with state.workspace.lock:
            fault = take(state.pending, method) or Fault()
        headers = {"x-oauth-scopes": ",".join(state.scopes)}
        status: int = fault.status or HTTPStatus.OK
        if fault.status:
            limited = status == HTTPStatus.TOO_MANY_REQUESTS
            found: Answer = {"ok": False, "error": "ratelimited" if limited else "internal_error"}
            headers |= {"Retry-After": str(fault.retry_after)} if limited else {}
        elif fault.error:
            found = {"ok": False, "error": fault.error}
            if fault.error == "missing_scope":
                found |= {"needed": "chat:write", "provided": ""}
        else:
            found = work()
            status = found.pop("status", status)
        entry["error"] = found.get("error")
        if fault.drop:
            return self.hang_up()
        state.stopping.wait(fault.hang)
        entry["status"] = status
        self.send(status, json.dumps(found).encode(), "application/json; charset=utf-8", headers)

    def hang_up(self) -> None:
        """Closes the connection without an answer."""
        self.close_connection = True

    def control(self, what: str, body: bytes) -> None:
        """What Slack does not have: faults, scopes, what was received."""
        state = self.server.state
        try:
            asked = json.loads(body) if body else None
            found = control(state, self.command, what, asked)
        except (FaultWrong, ValueError) as error:
            return self.send(HTTPStatus.BAD_REQUEST, f"{error}\n".encode(), "text/plain; charset=utf-8")
        self.send(HTTPStatus.OK, json.dumps(found).encode(), "application/json; charset=utf-8")

    def page(self, first: str, rest: list[str], query: Mapping[str, str]) -> None:
        """What people see."""
        workspace = self.server.state.workspace
        with workspace.lock:
            if first == "files" and rest and (file := workspace.files.get(rest[0])) and file.uploaded:
                content = workspace.content(file.id)
                kind = page.picture_type(content) or "application/octet-stream"
                return self.send(HTTPStatus.OK, content, kind)
            if first == "archives" and len(rest) == 2:
                if to := page.address_of(workspace, rest[0], rest[1]):
                    return self.send(HTTPStatus.FOUND, b"", HTML, {"Location": to})
            elif not first:
                found = page.render_page(workspace, query.get("channel", ""), live=True)
                return self.send(HTTPStatus.OK, found.encode(errors="replace"), HTML)
            elif first == "thread" and (thread := page.render_thread(workspace, query.get("ts", ""))):
                return self.send(HTTPStatus.OK, thread.encode(errors="replace"), HTML)
        self.send(HTTPStatus.NOT_FOUND, b"there is nothing here: the page is at /\n", "text/plain; charset=utf-8")

    def address(self) -> str:
        """The address at which this request found the server."""
        return f"http://{self.headers.get('Host') or self.server.state.page_url[7:-1]}"

    def send(self, status: int, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        """Answers."""
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "X-Content-Type-Options": "nosniff"}
        headers |= {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"} | dict(more or {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing: /control/received tells every request."""


def control(state: Simulator, verb: str, what: str, asked: Any) -> Any:
    """Carries out a request below /control/; returns its answer. Raises ValueError, saying what is wrong."""
    if verb == "GET" and what == "received":
        return state.received
    if verb == "DELETE" and what == "received":
        state.received.clear()
    elif verb == "POST" and what == "reset":
        state.reset()
    elif verb == "POST" and what == "faults":
        state.faults(*asked if isinstance(asked, list) else [asked])
    elif verb == "POST" and what == "down" and isinstance(asked, bool):
        state.down = asked
    elif verb == "POST" and what == "scopes" and isinstance(asked, list) and all(isinstance(one, str) for one in asked):
        state.scopes = tuple(asked)
    else:
        known = "GET or DELETE received; POST faults (a list), scopes (a list), down (true or false), reset"
        raise ValueError(f"/control/ has no {verb} {what} with this body: it has {known}")
    return {"ok": True}


class Server(ThreadingHTTPServer):
    """The server of one stand-in."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, state: Simulator) -> None:
        super().__init__((host, port), Handler)
        self.state = state
        shown = "127.0.0.1" if host in ("", "0.0.0.0") else host  # noqa: S104
        state.page_url = f"http://{shown}:{self.server_address[1]}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Ends `serve_forever`, and whatever an answer waits for."""
        self.state.stopping.set()
        self.shutdown()


@contextmanager
def run_simulator(
    *, host: str = "127.0.0.1", port: int = 0, data: Path | None = None, channels: tuple[str, ...] = DEFAULT_CHANNELS
) -> Iterator[Simulator]:
    """A stand-in that answers for the while, at a port of its own unless one is given."""
    with Server(host, port, Simulator(Workspace(data, channels))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.state
        finally:
            server.stop()
            thread.join()
