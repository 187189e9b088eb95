"""The operator extra links of a step: its artifact, its manifest, and its picture if it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from step_contract.manifest import check_path
from step_contract.paths import MANIFEST

from airflow_steps.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_steps.outcome import StepOutput

URL_PREFIX = "/market"


def artifact_url(manifest: str, name: str = "") -> str:
    """Return the path, on Airflow's API server, of a file of an artifact, or of the page about it.

    Args:
        manifest: the URI of the artifact's manifest.
        name: the file; "" for the page.

    Returns:
        The path, or "" if the artifact is not one of the deployment's, or a browser would read its path differently.
    """
    root, end = f"{(Settings.read().artifacts or '').rstrip('/')}/", f"/{MANIFEST}"
    if root == "/" or not manifest.startswith(root) or not manifest.endswith(end):
        return ""
    try:
        directory = check_path(manifest.removeprefix(root).removesuffix(end))
    except ValueError:
        return ""
    base_path = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return f"{base_path}{URL_PREFIX}/artifacts/{quote(directory, safe='/=')}/{quote(name)}"


class _StepLink(BaseOperatorLink):
    def make_url(self, output: StepOutput) -> str:
        """Return the URL for the output of a step; "" if the output has nothing to link to."""
        raise NotImplementedError

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the URL for the output of the step that the operator has just run; "" if it has none."""
        output: StepOutput | None = getattr(operator, "step_output", None)
        return self.make_url(output) if output else ""


class ArtifactLink(_StepLink):
    """The page about the artifact."""

    name = "Artifact"

    def make_url(self, output: StepOutput) -> str:
        """Return the page's path."""
        return artifact_url(output.manifest)


class ManifestLink(_StepLink):
    """The artifact's manifest."""

    name = "Manifest"

    def make_url(self, output: StepOutput) -> str:
        """Return the manifest's path."""
        return artifact_url(output.manifest, MANIFEST)


class PictureLink(_StepLink):
    """The artifact's first picture."""

    name = "Picture"

    def make_url(self, output: StepOutput) -> str:
        """Return the picture's path; "" if the artifact has none."""
        picture = next((name for name in output.files if name.endswith(".png")), None)
        return artifact_url(output.manifest, picture) if picture else ""


LINKS = (ArtifactLink(), ManifestLink(), PictureLink())


def make_link_xcoms(output: StepOutput) -> dict[str, str]:
    """Return the XComs in which the UI looks up the extra links; links without a URL are omitted."""
    urls = {link.xcom_key: link.make_url(output) for link in LINKS}
    return {key: url for key, url in urls.items() if url}
