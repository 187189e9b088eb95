"""A step's links in the UI: to its artifact, its manifest, and its picture where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from step_contract.paths import MANIFEST

from airflow_steps.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

PREFIX = "/market"


def page(manifest: str, name: str = "") -> str:
    """The address, on Airflow's own server, of a file of the artifact whose manifest has the URI `manifest`; of the page about
    it without `name`. Empty where it lies elsewhere than the deployment's artifacts.
    """
    root = f"{(Settings.read().artifacts or '').rstrip('/')}/"
    if root == "/" or not manifest.startswith(root):
        return ""
    below = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    directory = manifest.removeprefix(root).removesuffix(MANIFEST)
    return f"{below}{PREFIX}/artifacts/{quote(directory, safe='/=')}{quote(name)}"


class _Link(BaseOperatorLink):
    def of(self, manifest: str, files: tuple[str, ...]) -> str:
        """The address for an artifact with these files; empty where there is nothing to link to."""
        raise NotImplementedError

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """The address for what the operator has just made."""
        made: tuple[str, tuple[str, ...]] | None = getattr(operator, "made", None)
        return self.of(*made) if made else ""


class ArtifactLink(_Link):
    """The page that shows what the step made."""

    name = "Artifact"

    def of(self, manifest: str, files: tuple[str, ...]) -> str:
        """The page's address."""
        return page(manifest)


class ManifestLink(_Link):
    """The manifest itself."""

    name = "Manifest"

    def of(self, manifest: str, files: tuple[str, ...]) -> str:
        """The manifest's address."""
        return page(manifest, MANIFEST)


class PictureLink(_Link):
    """The picture, of a step that draws one."""

    name = "Picture"

    def of(self, manifest: str, files: tuple[str, ...]) -> str:
        """The picture's address; empty without one."""
        picture = next((name for name in files if name.endswith(".png")), None)
        return page(manifest, picture) if picture else ""


LINKS = (ArtifactLink(), ManifestLink(), PictureLink())


def links(manifest: str, files: tuple[str, ...]) -> dict[str, str]:
    """The XComs by which the UI finds the links; without those that lead nowhere."""
    found = {link.xcom_key: link.of(manifest, files) for link in LINKS}
    return {key: address for key, address in found.items() if address}
