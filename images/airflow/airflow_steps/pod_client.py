"""The pods of steps at the Kubernetes API, for the triggerer's event loop: nothing here blocks, and every wait is a watch."""

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

from airflow_steps.pod_status import COMPONENT

PASSING = (aiohttp.ClientError, asyncio.TimeoutError, ssl.SSLError, ConnectionError)
RECONNECT_SECONDS = 1.0
WATCH_SECONDS = 300  # a watch ends and is made again, so that a connection that died unseen is noticed
LONGEST_LINE = 16_384
REMOVE = "market-daily/remove-when-finished"

log = logging.getLogger(__name__)


class NotNow(Exception):
    """The cluster does not take the pod now: the namespace's quota is reached, or the API server, or what it asks, is away."""


class Refused(Exception):
    """The cluster does not take the pod: a policy, an admission, or the pod itself is wrong, or it has waited long enough."""


def _passes(error: BaseException) -> bool:
    return isinstance(error, PASSING) or (
        isinstance(error, client.ApiException) and (error.status == 429 or error.status >= 500)
    )


class Pods:
    """The pods at the API server. One for all triggers of a process: `await Pods.here()`."""

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Pods]] = WeakKeyDictionary()

    def __init__(self, configuration: client.Configuration) -> None:
        configuration.connection_pool_maxsize = 1000  # two streams a running step
        self._api: Any = client.CoreV1Api(client.ApiClient(configuration))

    @classmethod
    async def here(cls) -> Pods:
        """The pods of the cluster that this process runs in, or else of the current kubeconfig context."""
        loop = asyncio.get_running_loop()
        if loop not in cls._of_loops:
            configuration = client.Configuration()
            try:
                config.load_incluster_config(client_configuration=configuration)
            except config.ConfigException:
                await config.load_kube_config(client_configuration=configuration)
            cls._of_loops[loop] = cls(configuration)
        return cls._of_loops[loop]

    async def read(self, namespace: str, name: str) -> Any | None:
        """The pod, or None where there is none. Waits for the API server as long as it takes."""
        while True:
            try:
                return await self._api.read_namespaced_pod(name, namespace)
            except Exception as error:
                if isinstance(error, client.ApiException) and error.status == 404:
                    return None
                if not _passes(error):
                    raise
                log.warning("the API server does not answer, trying again: %s", error)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def create(self, pod: Mapping[str, Any]) -> bool:
        """Creates the pod; False where one of its name is there already.

        Raises NotNow where it may be let in later, and Refused where it never will be.
        """
        try:
            await self._api.create_namespaced_pod(pod["metadata"]["namespace"], dict(pod))
            return True
        except PASSING as error:
            raise NotNow(f"the API server does not answer ({type(error).__name__})") from error
        except client.ApiException as error:
            if error.status == 409 and "AlreadyExists" in str(error.body):
                return False
            # The quota's own bookkeeping conflicts (409) with another pod's now and then.
            later = _passes(error) or error.status == 409 or (error.status == 403 and "exceeded quota" in str(error.body))
            raise (NotNow if later else Refused)(_message(error)) from error

    async def follow(self, namespace: str, name: str) -> AsyncIterator[Any]:
        """The pod as it is now and at each change; ends when the pod is gone. Outlives the API server's absences."""
        while (pod := await self.read(namespace, name)) is not None:
            yield pod
            selector, version = f"metadata.name={name}", pod.metadata.resource_version
            options = {"field_selector": selector, "resource_version": version, "timeout_seconds": WATCH_SECONDS}
            try:
                async with watch.Watch() as changes:
                    async for change in changes.stream(self._api.list_namespaced_pod, namespace, **options):
                        if change["type"] == "DELETED":
                            yield change["object"]
                            return
                        yield change["object"]
            except Exception as error:
                # 410: the version is too old to go on from.
                if not _passes(error) and not (isinstance(error, client.ApiException) and error.status == 410):
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)

    async def lines(self, namespace: str, name: str, container: str) -> AsyncGenerator[str, None]:
        """The container's log, line by line as it is printed, to its end; a broken connection loses and repeats none."""
        seen = ""
        while True:
            told, since = seen, {"since_seconds": _seconds_since(seen)} if seen else {}
            options = {"container": container, "follow": True, "timestamps": True, "_preload_content": False}
            try:
                answer = await self._api.read_namespaced_pod_log(name, namespace, **options, **since)
                async with contextlib.aclosing(_split(answer.content.iter_any())) as split:
                    async for line in split:
                        stamp, _, text = line.partition(" ")
                        if stamp > told:
                            seen = stamp
                            yield text
                return
            except Exception as error:
                if isinstance(error, client.ApiException) and error.status in (400, 404):
                    return
                if not _passes(error):
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)

    async def warnings(self, namespace: str, name: str) -> list[str]:
        """What the cluster warned about the pod, the latest last; empty where that cannot be read."""
        with contextlib.suppress(*PASSING, client.ApiException):
            found = await self._api.list_namespaced_event(namespace, field_selector=f"involvedObject.name={name},type=Warning")
            return [f"{event.reason}: {event.message}" for event in found.items]
        return []

    async def delete(self, namespace: str, name: str, *, grace_seconds: int | None = None) -> None:
        """Deletes the pod; done where there is none."""
        options = {} if grace_seconds is None else {"grace_period_seconds": grace_seconds}
        try:
            await self._api.delete_namespaced_pod(name, namespace, **options)
        except client.ApiException as error:
            if error.status != 404:
                raise

    async def remove(self, namespace: str, name: str) -> None:
        """Deletes an ended pod if its annotation says that it is not to be kept."""
        pod = await self.read(namespace, name)
        if pod and pod.status.phase in (pod.metadata.annotations or {}).get(REMOVE, "").split(","):
            await self.delete(namespace, name)

    async def of_labels(self, namespace: str, labels: Mapping[str, str]) -> list[Any]:
        """The pods that have the labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        found: list[Any] = (await self._api.list_namespaced_pod(namespace, label_selector=selector)).items
        return found

    async def sweep(self, namespace: str, before: datetime) -> None:
        """Deletes the steps' pods that ended before `before` and are not to be kept, whichever process ran them."""
        for pod in await self.of_labels(namespace, COMPONENT):
            if pod.status.phase in ("Succeeded", "Failed") and _ended_at(pod) < before:
                await self.remove(namespace, pod.metadata.name)


def _message(error: client.ApiException) -> str:
    """What the API server said, without the rest of its answer."""
    try:
        return str(json.loads(error.body or b"")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _ended_at(pod: Any) -> datetime:
    ends = [status.state.terminated.finished_at for status in pod.status.container_statuses or () if status.state.terminated]
    last: datetime = max((end for end in ends if end), default=pod.metadata.creation_timestamp)
    return last


def _seconds_since(stamp: str) -> int:
    return max(1, int((datetime.now(UTC) - datetime.fromisoformat(stamp[:19] + "+00:00")).total_seconds()) + 2)


async def _split(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The lines of a stream of bytes, each cut to LONGEST_LINE characters."""
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    async for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        rest = rest[: LONGEST_LINE + 1]
        for line in lines:
            yield line[:LONGEST_LINE]
    if rest:
        yield rest[:LONGEST_LINE]
