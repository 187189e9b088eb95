"""Documentation: links resolve, decision pages have one form, and the reference is generated from the code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from devtools.commands import ROOT
from devtools.container_images import PROGRAMS
from step_contract.errors import RETRY_RULES
from step_contract.schemas import TABLES

from ..markdown_page import list_anchors

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PAGES = [*ROOT.glob("*.md"), ROOT / "data" / "README.md", *(ROOT / "docs").rglob("*.md")]
SECTIONS = ["Context", "Decision", "Consequences"]


def by_path(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_relative_links_resolve(page: Path) -> None:
    prose = re.sub(r"(?s)```.*?```", "", page.read_text())
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", prose) if ":" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_anchors_of_links_resolve(page: Path) -> None:
    prose = re.sub(r"(?s)```.*?```", "", page.read_text())
    links = [(target, anchor) for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", prose)]
    wrong = [
        f"{target}#{anchor}" for target, anchor in links if anchor not in list_anchors(page.parent / target if target else page)
    ]
    assert wrong == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decision_pages_have_status_date_and_sections_in_order(page: Path) -> None:
    text, number = page.read_text(), int(page.name[:4])
    assert re.match(rf"# {number}\. \S.*\n\n- Status: \w.*\n- Date: \d{{4}}-\d\d-\d\d\n\n## ", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS


def test_the_index_lists_every_decision_once() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    assert re.findall(r"^\| \[(\d+)\]\((.+?)\) \| \S", index, re.MULTILINE) == [
        (str(number), page.name) for number, page in enumerate(DECISIONS, start=1)
    ]


def describe(program: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "docs" / "generator" / "describe.py"), program]
    environment = {"COLUMNS": "88", "PRICES_URL": "https://example.com/{symbol}/{year}.csv"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_the_reference_describes_every_step_option_and_retry_rule() -> None:
    description = describe("collector")
    steps = description["parser"]["steps"]
    assert {"decide", "fetch-prices", "fetch-headlines"} <= set(steps)
    options = {option["flag"]: option for option in steps["fetch-prices"]["options"]}
    assert options["--artifacts URL"]["required"] and not options["--accept-corrections"]["required"]
    assert "[environment: SYMBOL; default: KS11]" in options["--symbol SYMBOL"]["help"]
    assert [rule["meaning"] for rule in description["retry_rules"]] == [rule.meaning for rule in RETRY_RULES.values()]


def test_the_reference_describes_every_column_with_dtype_and_unit() -> None:
    described = {table["file"]: table for table in describe("collector")["tables"]}
    assert {name: table["version"] for name, table in described.items()} == {table.file: table.version for table in TABLES}
    for table in TABLES:
        assert [(column["name"], column["dtype"]) for column in described[table.file]["columns"]] == [
            (column.name, column.dtype) for column in table.columns
        ]
    [market_cap] = [column for column in described["prices.parquet"]["columns"] if column["name"] == "market_cap"]
    assert "(KRW)" in market_cap["requirement"] and market_cap["nullable"]


def test_the_site_has_every_program_and_generated_table() -> None:
    config, runbook = (ROOT / "mkdocs.yml").read_text(), (ROOT / "docs" / "runbook.md").read_text()
    assert set(re.findall(r"docs/reference/(\w+)\.md", config)) == set(PROGRAMS)
    hooks = (ROOT / "docs" / "generator" / "hooks.py").read_text()
    markers = re.findall(r"<!-- generated: (.+?) -->", runbook)
    assert markers and [marker for marker in markers if f'"{marker}"' not in hooks] == []


def test_the_site_loads_nothing_from_the_network() -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in config
    assert "://" not in config
