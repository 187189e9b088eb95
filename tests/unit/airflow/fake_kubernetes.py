"""A fake of the Kubernetes API's pods, over HTTP. A test changes a pod's status; watches report the change.

`silent` holds the verbs (create, read, list, watch, delete, log, events) that never respond, `statuses` the error statuses with
which the next requests of a verb fail.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

NAMESPACE = "steps"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class KubernetesApi:
    """The pods by name. `await api.start(tmp_path)` writes a kubeconfig and returns its path."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[str]] = {}
        self.log_cuts: list[int] = []  # after so many lines, the next streams of a log end although the container runs
        self.log_zone = "Z"
        self.log_prefix = ""  # instead of the time of each line
        self.log_times: list[datetime] = []  # the times of the first lines of each log
        self.node_clock = timedelta(0)  # how far the node's clock is ahead
        self.clock = timedelta(0)  # how far the API server's clock is ahead
        self.log_requests: list[dict[str, str]] = []
        self.silent: set[str] = set()
        self.statuses: dict[str, list[int]] = {}
        self.hanging = 0  # requests that never get a response
        self.reads = 0
        self.watches = 0
        self.before_delete: Callable[[], Awaitable[None]] | None = None
        self.refused_deletes = 0
        self.creates_silently = False  # a creation that never responds creates the pod nevertheless
        self.created: list[str] = []
        self.deleted: list[str] = []
        self.quota: int | None = None
        self.rejection = ""  # the reason for rejecting every pod (403)
        self.outage = ""  # the reason for failing every creation (500)
        self.events: list[dict[str, Any]] = []
        self.deleted_pods: dict[str, dict[str, Any]] = {}
        self.changed = asyncio.Condition()
        self.version = 0
        self.expired_watches = 0  # so many watches fail because their version is too old (410)
        self._runner: web.AppRunner | None = None

    async def start(self, folder: Path) -> Path:
        """Serve on a free port."""
        app = web.Application()
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        app.add_routes(
            [
                web.post(pods, self._fail_first("create", self._create)),
                web.get(pods, self._list),
                web.get(pods + "/{name}", self._fail_first("read", self._read)),
                web.delete(pods + "/{name}", self._fail_first("delete", self._delete)),
                web.get(pods + "/{name}/log", self._fail_first("log", self._log)),
                web.get(f"/api/v1/namespaces/{NAMESPACE}/events", self._fail_first("events", self._events)),
            ]
        )
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "test", "user": {}}],
        }
        path = folder / "kubeconfig"
        path.write_text(json.dumps(config))
        return path

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    def _fail_first(self, verb: str, handler: Handler) -> Handler:
        """Return the handler with the faults of `verb` before it."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if verb in self.silent:
                if verb == "create" and self.creates_silently:
                    await handler(request)
                self.hanging += 1
                await asyncio.Event().wait()
            if statuses := self.statuses.get(verb):
                status = statuses.pop(0)
                return web.json_response({"kind": "Status", "message": f"fault {status}", "code": status}, status=status)
            return await handler(request)

        return handle

    async def change(self, name: str, **status: Any) -> None:
        """Set the pod's status and notify the watches."""
        async with self.changed:
            self.version += 1
            self.pods[name]["status"] = status
            self.pods[name]["metadata"]["resourceVersion"] = str(self.version)
            self.changed.notify_all()

    async def start_container(self, name: str) -> None:
        await self.change(name, phase="Running", containerStatuses=[make_container_status({"running": {}})])

    async def terminate_container(self, name: str, code: int, message: str = "", **more: Any) -> None:
        """Terminate the pod's container with an exit code and a termination message."""
        times = dict.fromkeys(("startedAt", "finishedAt"), self.pods[name]["metadata"]["creationTimestamp"])
        terminated = times | {"exitCode": code, "message": message, "reason": "Error" if code else "Completed"} | more
        phase = "Failed" if code else "Succeeded"
        await self.change(name, phase=phase, containerStatuses=[make_container_status({"terminated": terminated})])

    async def delete_pod(self, name: str) -> None:
        """Delete the pod, as a person or the cluster does."""
        async with self.changed:
            self.version += 1
            self.deleted_pods[name] = self.pods.pop(name)
            self.changed.notify_all()

    def count_active(self) -> int:
        return sum(pod["status"].get("phase") not in ("Succeeded", "Failed") for pod in self.pods.values())

    async def _create(self, request: web.Request) -> web.Response:
        pod = await request.json()
        name = pod["metadata"]["name"]
        if name in self.pods:
            return web.json_response({"reason": "AlreadyExists"}, status=409)
        if self.outage:
            return web.json_response({"message": self.outage, "reason": "InternalError"}, status=500)
        if self.rejection:
            return web.json_response({"message": self.rejection, "reason": "Forbidden"}, status=403)
        if self.quota is not None and self.count_active() >= self.quota:
            return web.json_response({"message": "exceeded quota: steps"}, status=403)
        pod["metadata"]["creationTimestamp"] = f"{datetime.now(UTC) + self.clock:%Y-%m-%dT%H:%M:%SZ}"
        self.version += 1
        pod["metadata"]["resourceVersion"] = str(self.version)
        pod["status"] = {"phase": "Pending"}
        self.pods[name] = pod
        self.created.append(name)
        return web.json_response(pod, status=201)

    async def _read(self, request: web.Request) -> web.Response:
        self.reads += 1
        pod = self.pods.get(request.match_info["name"])
        headers = {"Date": format_datetime(datetime.now(UTC) + self.clock, usegmt=True)}
        return web.json_response(pod, headers=headers) if pod else web.json_response({}, status=404)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.pods:
            return web.json_response({}, status=404)
        if self.before_delete:
            await self.before_delete()
            self.before_delete = None
        body = await request.json() if request.can_read_body else {}
        wanted = (body.get("preconditions") or {}).get("resourceVersion")
        if wanted and wanted != self.pods[name]["metadata"]["resourceVersion"]:
            self.refused_deletes += 1
            return web.json_response({"reason": "Conflict"}, status=409)
        self.deleted.append(name)
        await self.delete_pod(name)
        return web.json_response({})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        is_watch = request.query.get("watch") in ("True", "true")
        handler = self._fail_first("watch", self._watch) if is_watch else self._fail_first("list", self._list_pods)
        return await handler(request)

    async def _list_pods(self, request: web.Request) -> web.StreamResponse:
        wanted = dict(pair.split("=") for pair in request.query.get("labelSelector", "").split(",") if pair)
        items = [pod for pod in self.pods.values() if wanted.items() <= pod["metadata"].get("labels", {}).items()]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        if self.expired_watches:
            self.expired_watches -= 1
            return web.json_response({"code": 410}, status=410)
        name, version = request.query["fieldSelector"].partition("=")[2], int(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            pod = self.pods.get(name)
            if pod is None:
                await response.write(json.dumps({"type": "DELETED", "object": self.deleted_pods[name]}).encode() + b"\n")
                return response
            if int(pod["metadata"]["resourceVersion"]) > version:
                version = int(pod["metadata"]["resourceVersion"])
                await response.write(json.dumps({"type": "MODIFIED", "object": pod}).encode() + b"\n")
            async with self.changed:
                await self.changed.wait_for(partial(self._has_changed, name, version))

    def _has_changed(self, name: str, version: int) -> bool:
        return name not in self.pods or int(self.pods[name]["metadata"]["resourceVersion"]) > version

    async def print_lines(self, name: str, *lines: str) -> None:
        """Print lines in the pod's container."""
        async with self.changed:
            self.logs.setdefault(name, []).extend(lines)
            self.changed.notify_all()

    async def _log(self, request: web.Request) -> web.StreamResponse:
        self.log_requests.append(dict(request.query))
        name, follow, sent = request.match_info["name"], request.query.get("follow") == "true", 0
        cut = self.log_cuts.pop(0) if self.log_cuts and follow else None
        response = web.StreamResponse()
        await response.prepare(request)
        since = self._get_since(request)
        while True:
            for line in self.logs.get(name, [])[sent:cut]:
                time, text = self._format_log_time(sent)
                if time >= since:
                    await response.write(f"{self.log_prefix or text} {line}\n".encode())
                sent += 1
            if not follow or sent == cut or self._has_terminated(name):
                return response
            async with self.changed:
                await self.changed.wait_for(partial(self._has_more, name, sent))

    def _get_since(self, request: web.Request) -> datetime:
        """Return the time from which lines are wanted. The kubelet counts seconds by the node's clock."""
        if seconds := request.query.get("sinceSeconds"):
            return datetime.now(UTC) + self.node_clock - timedelta(seconds=int(seconds))
        return datetime.fromisoformat(request.query.get("sinceTime", "2000-01-01T00:00:00Z"))

    def _format_log_time(self, number: int) -> tuple[datetime, str]:
        if number < len(self.log_times):
            time = self.log_times[number]
            return time, time.isoformat(timespec="microseconds").replace("+00:00", "000Z")
        text = f"2026-01-15T{9 if self.log_zone == 'Z' else 18:02}:00:00.{number:09d}{self.log_zone}"
        return datetime.fromisoformat(text), text

    def _has_terminated(self, name: str) -> bool:
        return name not in self.pods or self.pods[name]["status"].get("phase") in ("Succeeded", "Failed")

    def _has_more(self, name: str, sent: int) -> bool:
        return len(self.logs.get(name, [])) > sent or self._has_terminated(name)

    async def _events(self, request: web.Request) -> web.Response:
        return web.json_response({"kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": self.events})


def make_container_status(state: dict[str, Any]) -> dict[str, Any]:
    """Return a container status."""
    return {"name": "base", "image": "collector", "imageID": "", "ready": False, "restartCount": 0, "state": state}
