from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import project_version
import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = sorted([*ROOT.glob("images/*/pyproject.toml"), *ROOT.glob("dev/*/pyproject.toml")])
DOCKERFILES = sorted([*ROOT.glob("images/*/Dockerfile"), *ROOT.glob("dev/*/Dockerfile")])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with the files of the repository that hold the version."""
    for file in (ROOT / "VERSION", *project_version.versioned_files(ROOT)):
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return tmp_path


def test_every_package_and_chart_has_the_projects_version() -> None:
    assert project_version.SEMANTIC_VERSION.fullmatch(project_version.read_version())
    assert len(project_version.versioned_files()) > len(PACKAGES) > 0
    assert (differences := project_version.find_differences()) == [], "\n".join(differences)


def test_a_differing_version_is_reported_with_the_fixing_command(copy: Path) -> None:
    chart = copy / "helm" / "namespace-policies" / "Chart.yaml"
    chart.write_text(re.sub(r"^version: .*", "version: 0.0.1", chart.read_text(), flags=re.MULTILINE))
    package = copy / "images" / "trainer" / "pyproject.toml"
    package.write_text(re.sub(r"^version = .*\n", "", package.read_text(), flags=re.MULTILINE))
    expected = project_version.read_version(copy)
    missing, differs = project_version.find_differences(copy)
    assert f"images/trainer/pyproject.toml states no version, VERSION holds {expected}" in missing
    assert f"helm/namespace-policies/Chart.yaml states version 0.0.1, VERSION holds {expected}" in differs
    assert f"run python scripts/project_version.py {expected}" in differs


def test_setting_the_version_changes_one_line_of_every_file(copy: Path) -> None:
    files = [copy / "VERSION", *project_version.versioned_files(copy)]
    before = {file: file.read_text().splitlines() for file in files}
    assert sorted(project_version.write_version("98.76.54", copy)) == sorted(files)
    assert project_version.find_differences(copy) == []
    for file in files:
        pairs = zip(before[file], file.read_text().splitlines(), strict=True)
        [(_, line)] = [(old, new) for old, new in pairs if old != new]
        assert "98.76.54" in line
    assert project_version.write_version("98.76.54", copy) == []


@pytest.mark.parametrize("version", ["1", "1.2", "v1.2.3", "1.2.3-dev", "01.2.3", ""])
def test_an_invalid_version_changes_nothing(version: str, copy: Path) -> None:
    before = project_version.read_version(copy)
    with pytest.raises(ValueError, match=r"must be MAJOR\.MINOR\.PATCH"):
        project_version.write_version(version, copy)
    assert project_version.read_version(copy) == before


def test_the_script_prints_the_version() -> None:
    script = ROOT / "scripts" / "project_version.py"
    completed = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert (completed.returncode, completed.stdout) == (0, f"{project_version.read_version()}\n")


def test_the_changelog_has_unreleased_and_the_version_first() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", project_version.read_version()], "CHANGELOG.md needs a section for VERSION"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda file: file.parent.name)
def test_every_package_states_the_license(package: Path) -> None:
    assert tomllib.loads(package.read_text())["project"]["license"] == "Apache-2.0"


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.parent.name)
def test_every_image_states_the_license(dockerfile: Path) -> None:
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in dockerfile.read_text()


def test_the_license_is_the_complete_apache_license() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert text.lstrip().startswith("Apache License\n                           Version 2.0, January 2004")
    for section in range(1, 10):
        assert f"\n   {section}. " in text
    assert "END OF TERMS AND CONDITIONS" in text and text.endswith("limitations under the License.\n")
