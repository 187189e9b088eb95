"""The images: their names, in this one place, and how they are built.

    python scripts/build_images.py             # builds all; prints name and size
    python scripts/build_images.py names       # prints the names, as variables
    python scripts/build_images.py trainer     # builds one
    python scripts/build_images.py push        # builds and pushes all; prints the names by digest, as variables

A name is IMAGE_PREFIX/program:TAG; the tag is the git commit, with -dirty where the tree differs from it. AIRFLOW_IMAGE,
COLLECTOR_IMAGE and TRAINER_IMAGE replace a whole name, by a digest for instance.
"""

from __future__ import annotations

import os
import re

from devtools.commands import ROOT, ToolError, fail, need, progress, run

# Every folder with requirements is an image with an environment of its own.
PROGRAMS = tuple(
    sorted(file.parent.name for file in (ROOT / "images").glob("*/requirements.in") if file.parent.name != "airflow")
)
IMAGES = (*PROGRAMS, "airflow")
# For a cluster on one's own machine: built there, never pushed.
LOCAL_IMAGES = ("slack",)
BASES = {
    "AIRFLOW_BASE_IMAGE": ("airflow",),
    "PYTHON_IMAGE": (*PROGRAMS, "slack"),
    "TORCH_INDEX": ("trainer",),
}
# torch's builds for other architectures have died with a segmentation fault: see docs/decisions.
TRAINER_PLATFORM = os.environ.get("TRAINER_PLATFORM") or "linux/amd64"


def commit() -> str:
    """The commit that the tree is at, with -dirty where it differs."""
    return (
        os.environ.get("COMMIT")
        or run(["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], seconds=30).strip()
    )


def variable_of(image: str) -> str:
    """The variable that gives `image` another name."""
    return f"{image.upper().replace('-', '_')}_IMAGE"


def name_of(image: str) -> str:
    """The full name of `image`."""
    given = os.environ.get(variable_of(image))
    tag, prefix = os.environ.get("TAG") or commit(), os.environ.get("IMAGE_PREFIX") or "market-daily"
    return given or f"{prefix}/{image}:{tag}"


def airflow_version() -> str:
    """Airflow's version, as images/airflow/requirements.in pins it: the one place that does."""
    pinned = re.search(r"^apache-airflow==([\w.]+)", (ROOT / "images/airflow/requirements.in").read_text(), re.MULTILINE)
    if not pinned:
        raise ToolError("images/airflow/requirements.in must pin Airflow: apache-airflow==VERSION")
    return pinned[1]


def build(image: str) -> str:
    """Builds `image` unless its whole name was given; returns the name. Raises ToolError with the build's last lines."""
    name = name_of(image)
    if os.environ.get(variable_of(image)):
        return name
    arguments = {"COMMIT": commit(), "VERSION": name.rpartition(":")[2]}
    if image == "airflow":
        arguments["AIRFLOW_BASE_IMAGE"] = f"apache/airflow:slim-{airflow_version()}-python3.11"
    arguments |= {key: os.environ[key] for key, used in BASES.items() if image in used and os.environ.get(key)}
    command = ["docker", "build", "--file", f"images/{image}/Dockerfile", "--tag", name]
    command += ["--platform", TRAINER_PLATFORM] if image == "trainer" else []
    command += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    with progress(f"image {name}"):
        run([*command, "."], seconds=1800, more={"DOCKER_BUILDKIT": "1"})
    return name


def id_of(name: str) -> str:
    """The image's id; empty where this machine does not have it."""
    try:
        return run(["docker", "image", "inspect", "--format", "{{.Id}}", name], seconds=30).strip()
    except ToolError:
        return ""


def push(name: str) -> str:
    """Pushes the image; returns its name by digest."""
    with progress(f"push {name}"):
        run(["docker", "push", name], seconds=1800)
    return pinned(name)


def pinned(name: str) -> str:
    """The image's name by digest; raises ToolError where it is known by no digest, that is, was never pushed or pulled."""
    if "@sha256:" in name:
        return name
    repository = name.rpartition(":")[0]
    try:
        found = run(["docker", "image", "inspect", "--format", '{{join .RepoDigests " "}}', name], seconds=30).split()
    except ToolError:
        found = []
    for digest in found:
        if digest.startswith(f"{repository}@"):
            return digest
    raise ToolError(f"{name} has no digest here: push it with make push, or give its name by digest (see docs/deploy.md)")


def main(arguments: list[str]) -> int:
    """Builds the images that the arguments name, or prints the names; returns the exit code."""
    try:
        need("docker", "git")
        if arguments == ["names"]:
            print("\n".join(f"{variable_of(image)}={name_of(image)}" for image in IMAGES))
            return 0
        if arguments == ["push"]:
            print("\n".join(f"{variable_of(image)}={push(build(image))}" for image in IMAGES))
            return 0
        known = (*IMAGES, *LOCAL_IMAGES)
        if unknown := set(arguments) - set(known):
            raise ToolError(f"there is no image {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        for image in arguments or known:
            name = build(image)
            size = int(run(["docker", "image", "inspect", "--format", "{{.Size}}", name], seconds=30))
            print(f"  {name}: {size / 1e6:.0f} MB")
    except ToolError as error:
        return fail(error)
    return 0
