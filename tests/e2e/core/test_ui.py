"""The UI, as a newcomer sees it."""

from __future__ import annotations

from devtools import kind_cluster
from devtools.commands import ROOT, run


def test_a_browser_logs_in_and_sees_the_documentation_the_graph_a_log_and_what_a_link_leads_to() -> None:
    pictures = ROOT / ".run" / "ui"
    pictures.mkdir(parents=True, exist_ok=True)
    image = run(["docker", "build", "--quiet", "tests/e2e/browser"], seconds=400, more={"DOCKER_BUILDKIT": "1"}).split()[-1]
    node = f"http://{kind_cluster.CLUSTER}-control-plane:30080"  # the cluster's own network: nothing of this machine is needed
    seen = run(
        ["docker", "run", "--rm", "--network=kind", f"--volume={pictures}:/pictures", image, node, "admin", "/pictures"],
        seconds=300,
    )
    assert "seen" in seen
    assert {"docs.png", "graph.png", "log.png", "details.png", "artifact.png"} <= {one.name for one in pictures.iterdir()}
