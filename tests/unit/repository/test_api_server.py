"""A deployment whose network policies exclude the Kubernetes API is refused before it changes anything."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from devtools.api_server import check_network_policy
from devtools.commands import ToolError

PRIVATE = [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]


def check(address: str, peers: Sequence[object] | None) -> None:
    slices = {"items": [{"endpoints": [{"addresses": [address]}]}]}
    to = f"to: {json.dumps(peers)}\n      " if peers else ""
    rendered = (
        "metadata:\n  name: dns\nspec:\n  egress:\n    - to: []\n---\nmetadata:\n  name: airflow-kubernetes\nspec:\n"
        f"  podSelector: {{}}\n  egress:\n    - {to}ports:\n        - {{protocol: TCP, port: 443}}\n---\n"
        'metadata:\n  name: bucket\nspec:\n  egress:\n    - to: [{"ipBlock":{"cidr":"203.0.113.0/24"}}]\n'
    )
    check_network_policy(lambda *arguments: json.dumps(slices), rendered, "staging")


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1"])
def test_an_api_server_that_a_peer_selects_is_accepted(address: str) -> None:
    check(address, PRIVATE)


def test_without_peers_every_address_is_accepted() -> None:
    check("203.0.113.7", None)


@pytest.mark.parametrize(
    ("address", "block"), [("203.0.113.7", "203.0.113.7/32"), ("10.9.0.1", "10.9.0.1/32"), ("2001:db8::1", "2001:db8::1/128")]
)
def test_an_api_server_that_no_peer_selects_is_refused_with_the_setting(address: str, block: str) -> None:
    with pytest.raises(ToolError) as raised:
        check(address, PRIVATE)
    assert f"network: {{kubernetes: {{to: [{{ipBlock: {{cidr: {block}}}}}]}}}}" in str(raised.value)
    assert "helm/values-staging.yaml" in str(raised.value)
