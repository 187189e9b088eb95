"""A client of the Kubernetes API for the pods of steps. Asynchronous: nothing blocks the triggerer's event loop."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import aiohttp
from kubernetes_asyncio import client, config, watch

from airflow_steps.pod_spec import STEP_LABELS
from airflow_steps.pod_status import has_terminated

CONNECTION_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, ssl.SSLError, ConnectionError)
RECONNECT_SECONDS = 1.0
WATCH_TIMEOUT_SECONDS = 300  # a watch is renewed, so that a connection that died silently is noticed
MAX_LINE_LENGTH = 16_384
# The pod phases in which a finished pod is deleted, separated by commas.
DELETE_PHASES = "market-daily/delete-when-finished"

log = logging.getLogger(__name__)


class PodNotAdmittedError(Exception):
    """The cluster does not admit the pod now: its quota is exhausted, or the API server or a webhook is unavailable."""


class PodRejectedError(Exception):
    """The cluster will not admit the pod: a policy, a webhook or the API server rejected it, or it waited too long."""


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, CONNECTION_ERRORS) or (
        isinstance(error, client.ApiException) and (error.status == 429 or error.status >= 500)
    )


def is_quota_exceeded(status: int | None, body: object) -> bool:
    """Return whether a response of the API server says that the namespace's quota is exhausted: a pod may be admitted later."""
    return status == 403 and "exceeded quota" in str(body)


class PodClient:
    """The pods of steps at the API server. All triggers of a process share one: `await PodClient.get()`."""

    _clients: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, PodClient]] = WeakKeyDictionary()

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.connection_pool_maxsize = 1000  # two streams per running step
        self._api: Any = client.CoreV1Api(client.ApiClient(configuration))

    @classmethod
    async def get(cls) -> PodClient:
        """Return the client for the cluster that this process runs in, or else for the current kubeconfig context."""
        loop = asyncio.get_running_loop()
        if loop not in cls._clients:
            configuration = client.Configuration()
            try:
                config.load_incluster_config(client_configuration=configuration)
            except config.ConfigException:
                await config.load_kube_config(client_configuration=configuration)
            cls._clients[loop] = cls(configuration)
        return cls._clients[loop]

    async def read_pod(self, namespace: str, name: str) -> Any | None:
        """Return the pod, or None if it does not exist. Retries until the API server responds."""
        while True:
            try:
                return await self._api.read_namespaced_pod(name, namespace)
            except Exception as error:
                if isinstance(error, client.ApiException) and error.status == 404:
                    return None
                if not _is_transient(error):
                    raise
                log.warning("the Kubernetes API does not respond, retrying: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def create_pod(self, pod: Mapping[str, Any]) -> bool:
        """Create the pod. Return False if a pod of that name exists.

        Raises PodNotAdmittedError if it may be admitted later, PodRejectedError if not.
        """
        try:
            await self._api.create_namespaced_pod(pod["metadata"]["namespace"], dict(pod))
            return True
        except CONNECTION_ERRORS as error:
            raise PodNotAdmittedError(f"the Kubernetes API does not respond ({type(error).__name__})") from error
        except client.ApiException as error:
            if error.status == 409 and "AlreadyExists" in str(error.body):
                return False
            # The quota's own bookkeeping conflicts (409) with that of another pod now and then.
            retryable = _is_transient(error) or error.status == 409 or is_quota_exceeded(error.status, error.body)
            raise (PodNotAdmittedError if retryable else PodRejectedError)(_get_message(error)) from error

    async def watch_pod(self, namespace: str, name: str) -> AsyncIterator[Any]:
        """Yield the pod as it is now and after each change, until it is deleted. Reconnects if the API server is away."""
        while (pod := await self.read_pod(namespace, name)) is not None:
            yield pod
            options = {
                "field_selector": f"metadata.name={name}",
                "resource_version": pod.metadata.resource_version,
                "timeout_seconds": WATCH_TIMEOUT_SECONDS,
            }
            try:
                async with watch.Watch() as stream:
                    async for event in stream.stream(self._api.list_namespaced_pod, namespace, **options):
                        yield event["object"]
                        if event["type"] == "DELETED":
                            return
            except Exception as error:
                # 410: the resource version is too old to resume from.
                if not _is_transient(error) and not (isinstance(error, client.ApiException) and error.status == 410):
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)

    async def stream_log(self, namespace: str, name: str, container: str) -> AsyncGenerator[str, None]:
        """Yield each line of the container's log as it is printed. A lost connection loses and repeats no line."""
        last_timestamp = ""
        while True:
            resume_after = last_timestamp
            options: dict[str, Any] = {"container": container, "follow": True, "timestamps": True, "_preload_content": False}
            if resume_after:
                options["since_seconds"] = _seconds_since(resume_after)
            try:
                response = await self._api.read_namespaced_pod_log(name, namespace, **options)
                async with contextlib.aclosing(_split_lines(response.content.iter_any())) as lines:
                    async for line in lines:
                        timestamp, _, text = line.partition(" ")
                        if timestamp > resume_after:
                            last_timestamp = timestamp
                            yield text
                return
            except Exception as error:
                if isinstance(error, client.ApiException) and error.status in (400, 404):
                    return
                if not _is_transient(error):
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)

    async def list_warnings(self, namespace: str, name: str) -> list[str]:
        """Return the pod's warning events, the latest last; none if they cannot be read."""
        with contextlib.suppress(*CONNECTION_ERRORS, client.ApiException):
            selector = f"involvedObject.name={name},type=Warning"
            events = await self._api.list_namespaced_event(namespace, field_selector=selector)
            return [f"{event.reason}: {event.message}" for event in events.items]
        return []

    async def delete_pod(self, namespace: str, name: str, *, grace_seconds: int | None = None) -> None:
        """Delete the pod if it exists."""
        options = {} if grace_seconds is None else {"grace_period_seconds": grace_seconds}
        try:
            await self._api.delete_namespaced_pod(name, namespace, **options)
        except client.ApiException as error:
            if error.status != 404:
                raise

    async def delete_finished_pod(self, namespace: str, name: str) -> None:
        """Delete the pod if its annotation DELETE_PHASES names its phase."""
        pod = await self.read_pod(namespace, name)
        if pod and pod.status.phase in (pod.metadata.annotations or {}).get(DELETE_PHASES, "").split(","):
            await self.delete_pod(namespace, name)

    async def list_pods(self, namespace: str, labels: Mapping[str, str]) -> list[Any]:
        """Return the pods that have the labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        pods: list[Any] = (await self._api.list_namespaced_pod(namespace, label_selector=selector)).items
        return pods

    async def delete_old_pods(self, namespace: str, before: datetime) -> None:
        """Delete the pods of steps that finished before `before`, whichever process ran them."""
        for pod in await self.list_pods(namespace, STEP_LABELS):
            if has_terminated(pod) and _get_finish_time(pod) < before:
                await self.delete_finished_pod(namespace, pod.metadata.name)


def _get_message(error: client.ApiException) -> str:
    try:
        return str(json.loads(error.body or b"")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _get_finish_time(pod: Any) -> datetime:
    states = [status.state.terminated for status in pod.status.container_statuses or ()]
    times = [terminated.finished_at for terminated in states if terminated and terminated.finished_at]
    last: datetime = max(times, default=pod.metadata.creation_timestamp)
    return last


def _seconds_since(timestamp: str) -> int:
    return max(1, int((datetime.now(UTC) - datetime.fromisoformat(timestamp[:19] + "+00:00")).total_seconds()) + 2)


async def _split_lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Yield the lines of a stream of bytes, each truncated to MAX_LINE_LENGTH characters."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    async for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        rest = rest[: MAX_LINE_LENGTH + 1]
        for line in lines:
            yield line[:MAX_LINE_LENGTH]
    if rest:
        yield rest[:MAX_LINE_LENGTH]
