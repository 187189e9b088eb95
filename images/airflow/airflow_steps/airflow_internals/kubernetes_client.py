"""The parts of kubernetes_asyncio that its documentation does not promise: raw responses, and objects from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import aiohttp
from kubernetes_asyncio import client


def make_api(configuration: client.Configuration) -> Any:
    """Return the core API, with a connection for each request.

    Relies on `connection_pool_maxsize`, which becomes the `limit` of aiohttp's TCPConnector: 0 is no limit.
    """
    # Two streams per running step; a request that waited for a connection would exceed its deadline.
    configuration.connection_pool_maxsize = 0
    return client.CoreV1Api(client.ApiClient(configuration))


async def read_pod_with_headers(api: Any, namespace: str, name: str, timeout_seconds: float) -> tuple[Any, Mapping[str, str]]:
    """Return the pod and the response's headers.

    Relies on the generated method `read_namespaced_pod_with_http_info` and its option `_return_http_data_only`.
    """
    pod, _, headers = await api.read_namespaced_pod_with_http_info(
        name, namespace, _return_http_data_only=False, _request_timeout=timeout_seconds
    )
    return pod, headers


async def open_watch(api: Any, namespace: str, timeout: aiohttp.ClientTimeout, **query: Any) -> aiohttp.ClientResponse:
    """Return the response to a watch of pods, whose lines are events. The client's own Watch creates an SSL context each time.

    Relies on `_preload_content=False`, with which the client returns aiohttp's response, whatever its status.
    """
    response: aiohttp.ClientResponse = await api.list_namespaced_pod(
        namespace, watch=True, _preload_content=False, _request_timeout=timeout, **query
    )
    return response


async def open_log(
    api: Any, namespace: str, name: str, query: Mapping[str, str], timeout: aiohttp.ClientTimeout
) -> aiohttp.ClientResponse:
    """Return the response to a request for a pod's log, whatever its status.

    The client's read_namespaced_pod_log lacks sinceTime, and sinceSeconds would mix this host's clock with the node's. Relies
    on `ApiClient.call_api`, with which the generated methods make their requests.
    """
    response: aiohttp.ClientResponse = await api.api_client.call_api(
        "/api/v1/namespaces/{namespace}/pods/{name}/log",
        "GET",
        {"namespace": namespace, "name": name},
        list(query.items()),
        auth_settings=["BearerToken"],
        _return_http_data_only=True,
        _preload_content=False,
        _request_timeout=timeout,
    )
    return response


async def raise_for_status(response: aiohttp.ClientResponse) -> None:
    """Raise ApiException for an error status: the client does so only where it reads the response itself."""
    if response.status != 200:
        error = client.ApiException(status=response.status, reason=response.reason)
        error.body = await response.read()
        raise error


def parse_pod(api: Any, content: Mapping[str, Any]) -> Any:
    """Return the pod for an event's JSON. Relies on `ApiClient.deserialize`, which reads the attribute `data` of a response."""
    return api.api_client.deserialize(SimpleNamespace(data=json.dumps(content)), "V1Pod")
