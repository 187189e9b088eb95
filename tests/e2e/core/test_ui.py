"""The UI in a browser."""

from __future__ import annotations

from devtools.commands import ROOT, run

from ..conftest import CLUSTER


def test_a_browser_shows_docs_graph_log_and_artifact() -> None:
    pictures = ROOT / ".run" / "ui"
    pictures.mkdir(parents=True, exist_ok=True)
    image = run(["docker", "build", "--quiet", "tests/e2e/browser"], timeout=400, env={"DOCKER_BUILDKIT": "1"}).split()[-1]
    node = f"http://{CLUSTER.name}-control-plane:30080"  # in kind's Docker network, independent of this machine's ports
    output = run(
        ["docker", "run", "--rm", "--network=kind", f"--volume={pictures}:/pictures", image, node, "admin", "/pictures"],
        timeout=300,
    )
    assert "passed" in output
    assert {"docs.png", "graph.png", "log.png", "details.png", "artifact.png"} <= {
        picture.name for picture in pictures.iterdir()
    }
