"""The container images: which there are, their names, and how they are built and pushed.

A name is IMAGE_PREFIX/IMAGE:TAG. The tag is the git commit, with the suffix -dirty if the working tree has changes. The
variables AIRFLOW_IMAGE, COLLECTOR_IMAGE and TRAINER_IMAGE replace a whole name, for example by one with a digest.
"""

from __future__ import annotations

import os
import re

from devtools.commands import ROOT, ToolError, progress, run

# Each folder of images/ with requirements.in is an image. The programs run the pipeline's steps.
_LOCKED = {file.parent.name for file in (ROOT / "images").glob("*/requirements.in")}
PROGRAMS = tuple(sorted(_LOCKED - {"airflow"}))
IMAGES = (*PROGRAMS, "airflow")
# Built for a kind cluster, never pushed.
LOCAL_IMAGES = ("slack-simulator",)
ALL_IMAGES = (*IMAGES, *LOCAL_IMAGES)
# The environment variables that become build arguments, and of which images.
BUILD_ARGUMENTS = {
    "AIRFLOW_BASE_IMAGE": ("airflow",),
    "PYTHON_IMAGE": (*PROGRAMS, *LOCAL_IMAGES),
    "TORCH_INDEX": ("trainer",),
}
# torch's builds for other architectures have crashed with a segmentation fault: see docs/decisions.
TRAINER_PLATFORM = os.environ.get("TRAINER_PLATFORM") or "linux/amd64"


def get_commit() -> str:
    """Return COMMIT, or the commit of the working tree, with the suffix -dirty if it has changes."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return os.environ.get("COMMIT") or run(describe, timeout=30).strip()


def pin_commit() -> None:
    """Keep the current commit for this process and its children, even if files change meanwhile."""
    os.environ["COMMIT"] = get_commit()


def variable_of(image: str) -> str:
    """Return the environment variable that replaces the name of `image`."""
    return f"{image.upper().replace('-', '_')}_IMAGE"


def name_of(image: str) -> str:
    """Return the full name of `image`."""
    override = os.environ.get(variable_of(image))
    tag, prefix = os.environ.get("TAG") or get_commit(), os.environ.get("IMAGE_PREFIX") or "market-daily"
    return override or f"{prefix}/{image}:{tag}"


def folder_of(image: str) -> str:
    """Return the folder of the image's Dockerfile, relative to the repository's root."""
    return f"dev/{image.replace('-', '_')}" if image in LOCAL_IMAGES else f"images/{image}"


def set_name(image: str, name: str) -> None:
    """Replace the full name of `image` for this process and its children."""
    os.environ[variable_of(image)] = name


def read_airflow_version() -> str:
    """Return the version of Airflow that images/airflow/requirements.in pins."""
    pinned = re.search(r"^apache-airflow==([\w.]+)", (ROOT / "images/airflow/requirements.in").read_text(), re.MULTILINE)
    if not pinned:
        raise ToolError("images/airflow/requirements.in does not pin Airflow: add a line apache-airflow==VERSION")
    return pinned[1]


def build_image(image: str) -> str:
    """Build `image` and return its name; an image whose name a variable replaces is not built.

    Raises ToolError with the last lines of the build's output.
    """
    name = name_of(image)
    if os.environ.get(variable_of(image)):
        return name
    arguments = {"COMMIT": get_commit(), "VERSION": name.rpartition(":")[2]}
    if image == "airflow":
        arguments["AIRFLOW_BASE_IMAGE"] = f"apache/airflow:slim-{read_airflow_version()}-python3.11"
    arguments |= {key: os.environ[key] for key, images in BUILD_ARGUMENTS.items() if image in images and os.environ.get(key)}
    command = ["docker", "build", "--file", f"{folder_of(image)}/Dockerfile", "--tag", name]
    command += ["--platform", TRAINER_PLATFORM] if image == "trainer" else []
    command += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    with progress(f"Building image {name}"):
        run([*command, "."], timeout=1800, env={"DOCKER_BUILDKIT": "1"})
    return name


def find_id(name: str) -> str:
    """Return the id of a local image; empty if it does not exist."""
    try:
        return run(["docker", "image", "inspect", "--format", "{{.Id}}", name], timeout=30).strip()
    except ToolError:
        return ""


def read_size(name: str) -> int:
    """Return the size of a local image in bytes."""
    return int(run(["docker", "image", "inspect", "--format", "{{.Size}}", name], timeout=30))


def push_image(name: str) -> str:
    """Push the image and return its name by digest."""
    with progress(f"Pushing image {name}"):
        run(["docker", "push", name], timeout=1800)
    return resolve_digest(name)


def resolve_digest(name: str) -> str:
    """Return the image's name by digest. Raises ToolError if it has none because it was never pushed or pulled."""
    if "@sha256:" in name:
        return name
    repository = name.rpartition(":")[0]
    try:
        digests = run(["docker", "image", "inspect", "--format", '{{join .RepoDigests " "}}', name], timeout=30).split()
    except ToolError:
        digests = []
    for digest in digests:
        if digest.startswith(f"{repository}@"):
            return digest
    raise ToolError(f"image {name} has no digest: push it with make push, or set its name by digest (see docs/deploy.md)")


def pin_digests() -> None:
    """Replace the name of every image by its name by digest, for this process and its children."""
    for image in IMAGES:
        set_name(image, resolve_digest(name_of(image)))
