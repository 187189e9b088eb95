"""A client of the Kubernetes API for the pods of steps. Asynchronous: nothing blocks the triggerer's event loop.

Every request has a deadline: without one, a connection that dies silently would be waited for forever. What may succeed
later (no connection, 401, 429, 5xx) is retried with backoff; any other error is raised.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar

import aiohttp
from kubernetes.client.exceptions import ApiException as SyncApiException
from kubernetes_asyncio import client, config
from tenacity import RetryCallState, retry, retry_if_exception, wait_random_exponential

from airflow_steps.airflow_internals import kubernetes_client
from airflow_steps.pods.event_loop import PerEventLoop
from airflow_steps.pods.spec import STEP_LABELS
from airflow_steps.pods.status import get_step_phase, has_terminated

CONNECTION_ERRORS = (aiohttp.ClientError, asyncio.TimeoutError, ssl.SSLError, ConnectionError)
RECONNECT_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 5.0
REQUEST_TIMEOUT_SECONDS = 15.0
CREATE_TIMEOUT_SECONDS = 35.0  # an admission webhook may take 30 s
# A watch is renewed by the server, or else by the client: a change goes unnoticed this long on a connection that died silently.
WATCH_SECONDS = 30
WATCH_TIMEOUT = aiohttp.ClientTimeout(total=WATCH_SECONDS + 5, sock_connect=10)
# A log is reopened if it was silent for this long.
LOG_TIMEOUT = aiohttp.ClientTimeout(sock_connect=10, sock_read=30)
# The pod phases in which a finished pod is deleted, separated by commas.
DELETE_PHASES = "market-daily/delete-when-finished"

log = logging.getLogger(__name__)


class PodNotAdmittedError(Exception):
    """The cluster does not admit the pod now: its quota is exhausted, or the API server or a webhook is unavailable."""


class PodRejectedError(Exception):
    """The cluster will not admit the pod: a policy, a webhook or the API server rejected it, or it waited too long."""


class LogUnavailableError(Exception):
    """The pod or its container has no log: it does not exist, or has not started."""


def is_transient(error: BaseException) -> bool:
    """Return whether the request may succeed later. 401: a service account's token is about to be replaced."""
    return isinstance(error, CONNECTION_ERRORS) or (
        isinstance(error, client.ApiException) and (error.status in (401, 429) or error.status >= 500)
    )


def is_quota_exceeded(status: int | None, body: object) -> bool:
    """Return whether a response of the API server says that the namespace's quota is exhausted: a pod may be admitted later."""
    return status == 403 and "exceeded quota" in str(body)


def describe_error(error: BaseException) -> str:
    """Return the API server's message, or else the kind of error."""
    if not isinstance(error, (client.ApiException, SyncApiException)):
        return f"{type(error).__name__} {error}".strip()
    try:
        return str(json.loads(error.body or b"")["message"])
    except (ValueError, KeyError, TypeError):
        return f"{error.status} {error.reason}"


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    log.warning("the Kubernetes API does not respond, retrying: %s", error and describe_error(error))


_retry_transient = retry(
    retry=retry_if_exception(is_transient),
    wait=wait_random_exponential(multiplier=0.5, max=MAX_BACKOFF_SECONDS),
    before_sleep=_log_retry,
    reraise=True,
)


class PodClient:
    """The pods of steps at the API server. All triggers of a process share one: `await PodClient.get()`."""

    _shared: ClassVar[PerEventLoop[PodClient]] = PerEventLoop()

    def __init__(self, configuration: client.Configuration) -> None:
        self._api = kubernetes_client.make_api(configuration)
        # The API server's clock and the event loop's at that moment.
        self._server_time: tuple[datetime, float] | None = None

    @classmethod
    async def get(cls) -> PodClient:
        """Return the client for the cluster that this process runs in, or else for the current kubeconfig context."""
        if shared := cls._shared.get():
            return shared
        configuration = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            await config.load_kube_config(client_configuration=configuration)
        # Another trigger may have been faster: its client is shared, this one has no connections yet.
        return cls._shared.get() or cls._shared.set_default(cls(configuration))

    def get_time(self) -> datetime:
        """Return the time by the API server's clock, which timestamps pods; by this host's if no pod was read yet."""
        if self._server_time is None:
            return datetime.now(UTC)
        time, read_at = self._server_time
        return time + timedelta(seconds=asyncio.get_running_loop().time() - read_at)

    @_retry_transient
    async def read_pod(self, namespace: str, name: str) -> Any | None:
        """Return the pod, or None if it does not exist."""
        try:
            pod, headers = await kubernetes_client.read_pod_with_headers(self._api, namespace, name, REQUEST_TIMEOUT_SECONDS)
            self._read_server_time(headers.get("Date"))
            return pod
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise

    def _read_server_time(self, date: str | None) -> None:
        with suppress(TypeError, ValueError):  # there is no date, or a proxy's is not one
            self._server_time = parsedate_to_datetime(date or "").astimezone(UTC), asyncio.get_running_loop().time()

    async def create_pod(self, pod: Mapping[str, Any]) -> bool:
        """Create the pod. Return False if a pod of that name exists.

        Raises PodNotAdmittedError if it may be admitted later, PodRejectedError if not.
        """
        namespace = pod["metadata"]["namespace"]
        try:
            await self._api.create_namespaced_pod(namespace, dict(pod), _request_timeout=CREATE_TIMEOUT_SECONDS)
            return True
        except CONNECTION_ERRORS as error:
            raise PodNotAdmittedError(f"the Kubernetes API does not respond ({type(error).__name__})") from error
        except client.ApiException as error:
            if error.status == 409 and "AlreadyExists" in str(error.body):
                return False
            # The quota's own bookkeeping conflicts (409) with that of another pod now and then.
            retryable = is_transient(error) or error.status == 409 or is_quota_exceeded(error.status, error.body)
            raise (PodNotAdmittedError if retryable else PodRejectedError)(describe_error(error)) from error

    async def watch_pod(self, namespace: str, name: str) -> AsyncGenerator[Any, None]:
        """Yield the pod as it is now and after each change, until it is deleted.

        Reconnects if the API server is away. Each time, and at least every WATCH_SECONDS, the pod is read again.
        """
        while (pod := await self.read_pod(namespace, name)) is not None:
            yield pod
            try:
                async for kind, changed in self._stream_changes(namespace, name, pod.metadata.resource_version):
                    yield changed
                    if kind == "DELETED":
                        return
            except Exception as error:
                # 410: the resource version is too old to resume from.
                if not is_transient(error) and not (isinstance(error, client.ApiException) and error.status == 410):
                    raise
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _stream_changes(self, namespace: str, name: str, resource_version: str) -> AsyncIterator[tuple[str, Any]]:
        """Yield the kind of each change to the pod, and the pod."""
        response = await kubernetes_client.open_watch(
            self._api,
            namespace,
            WATCH_TIMEOUT,
            field_selector=f"metadata.name={name}",
            resource_version=resource_version,
            timeout_seconds=WATCH_SECONDS,
        )
        try:
            await kubernetes_client.raise_for_status(response)
            async for line in response.content:
                try:
                    event = json.loads(line)
                    kind, content = event["type"], event["object"]
                except (ValueError, KeyError, TypeError) as error:
                    raise aiohttp.ClientPayloadError(f"not an event of the Kubernetes API: {line[:200]!r}") from error
                if kind == "ERROR":
                    raise client.ApiException(status=content.get("code") or 500, reason=content.get("message"))
                yield kind, kubernetes_client.parse_pod(self._api, content)
        finally:
            response.close()

    async def stream_log(
        self, namespace: str, name: str, container: str, *, follow: bool, since: datetime | None
    ) -> AsyncIterator[bytes]:
        """Yield the container's log, each line with its time (RFC 3339) before it, in chunks of any size.

        `since` is compared with the times of the lines, in whole seconds. Raises LogUnavailableError if there is no log;
        otherwise what `is_transient` knows, or ApiException.
        """
        query = {"container": container, "follow": str(follow).lower(), "timestamps": "true"}
        query |= {"sinceTime": f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"} if since else {}
        response = await kubernetes_client.open_log(self._api, namespace, name, query, LOG_TIMEOUT)
        try:
            if response.status in (400, 404):
                raise LogUnavailableError((await response.text())[:500])
            await kubernetes_client.raise_for_status(response)
            async for chunk in response.content.iter_any():
                yield chunk
        finally:
            response.close()

    async def list_warnings(self, namespace: str, name: str) -> list[str]:
        """Return the pod's warning events, the latest last; none if they cannot be read."""
        selector = f"involvedObject.name={name},type=Warning"
        try:
            events = await self._api.list_namespaced_event(
                namespace, field_selector=selector, _request_timeout=REQUEST_TIMEOUT_SECONDS
            )
        except (*CONNECTION_ERRORS, client.ApiException):
            return []
        return [f"{event.reason}: {event.message}" for event in events.items]

    @_retry_transient
    async def delete_pod(
        self, namespace: str, name: str, *, grace_seconds: int | None = None, resource_version: str | None = None
    ) -> bool:
        """Delete the pod if it exists. With a `resource_version`, return False if the pod has changed since."""
        options = client.V1DeleteOptions(grace_period_seconds=grace_seconds)
        if resource_version:
            options.preconditions = client.V1Preconditions(resource_version=resource_version)
        try:
            await self._api.delete_namespaced_pod(name, namespace, body=options, _request_timeout=REQUEST_TIMEOUT_SECONDS)
        except client.ApiException as error:
            if error.status == 409 and resource_version:
                return False
            if error.status != 404:
                raise
        return True

    async def delete_finished_pod(self, namespace: str, name: str) -> None:
        """Delete the pod of a step that has ended if its annotation DELETE_PHASES names the phase of the step.

        A sidecar that still runs would keep the pod in the quota: the pod is then deleted in any case.
        """
        pod = await self.read_pod(namespace, name)
        if pod is None or not (phase := get_step_phase(pod)):
            return
        if not has_terminated(pod) or phase in (pod.metadata.annotations or {}).get(DELETE_PHASES, "").split(","):
            await self.delete_pod(namespace, name)

    @_retry_transient
    async def list_pods(self, namespace: str, labels: Mapping[str, str]) -> list[Any]:
        """Return the pods that have the labels."""
        selector = ",".join(f"{name}={value}" for name, value in labels.items())
        response = await self._api.list_namespaced_pod(
            namespace, label_selector=selector, _request_timeout=REQUEST_TIMEOUT_SECONDS
        )
        pods: list[Any] = response.items
        return pods

    async def delete_old_pods(self, namespace: str, before: datetime) -> None:
        """Delete the pods of steps that ended before `before`, whichever process ran them."""
        for pod in await self.list_pods(namespace, STEP_LABELS):
            if get_step_phase(pod) and _get_finish_time(pod) < before:
                await self.delete_finished_pod(namespace, pod.metadata.name)


def _get_finish_time(pod: Any) -> datetime:
    states = [status.state.terminated for status in pod.status.container_statuses or ()]
    times = [terminated.finished_at for terminated in states if terminated and terminated.finished_at]
    last: datetime = max(times, default=pod.metadata.creation_timestamp)
    return last
