"""Whether the network policies let Airflow reach the Kubernetes API; without it, no step starts."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

from devtools.commands import ToolError

POLICY = "airflow-kubernetes"


def list_addresses(kubectl: Callable[..., str]) -> list[str]:
    """Return the addresses of the cluster's API servers, to which the service `kubernetes` forwards."""
    selector = "--selector=kubernetes.io/service-name=kubernetes"
    output = kubectl("get", "endpointslices", "--namespace=default", selector, "--output=json")
    endpoints = [endpoint for item in json.loads(output)["items"] for endpoint in item["endpoints"]]
    return [address for endpoint in endpoints for address in endpoint["addresses"]]


def is_allowed(address: str, peers: list[dict[str, Any]]) -> bool:
    """Return whether one of a network policy's peers selects the address."""
    ip = ipaddress.ip_address(address)
    for block in (peer["ipBlock"] for peer in peers if "ipBlock" in peer):
        if ip in ipaddress.ip_network(block["cidr"]) and not any(
            ip in ipaddress.ip_network(excluded) for excluded in block.get("except", ())
        ):
            return True
    return False


def check_network_policy(kubectl: Callable[..., str], rendered: str, environment: str) -> None:
    """Raise ToolError if the rendered policy `airflow-kubernetes` does not allow the API server's address."""
    policy = re.search(rf"^  name: {POLICY}$.*?^  egress:\n    - (?:to: (\[[^\n]*\]))?", rendered, re.MULTILINE | re.DOTALL)
    if not policy or not policy[1]:
        return
    peers = json.loads(policy[1])
    if refused := [address for address in list_addresses(kubectl) if not is_allowed(address, peers)]:
        blocks = ", ".join(
            f"{{ipBlock: {{cidr: {address}/{ipaddress.ip_address(address).max_prefixlen}}}}}" for address in refused
        )
        raise ToolError(
            f"network.kubernetes does not allow the address of the Kubernetes API, {', '.join(refused)}, so no step could "
            f"start: set in helm/values-{environment}.yaml\n  network: {{kubernetes: {{to: [{blocks}]}}}}"
        )
