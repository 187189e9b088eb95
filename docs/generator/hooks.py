"""MkDocs hooks: take the pages from where they are in the repository, and generate the reference pages from the code.

A page keeps its path in the repository, so its links work on GitHub as well as on the site. A file that a page links to and
that is no page, such as a values file, is copied.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = "docs/reference/{}.md"
MERMAID = "assets/javascripts/mermaid.js"
SEARCH_FROM_DISK = "assets/javascripts/search_from_disk.js"  # named in mkdocs.yml as well
LINK = re.compile(r"\]\(([^)#:\s]+)[^):\s]*\)")
# As step_contract.cli.add_option writes it.
ENVIRONMENT = re.compile(r"(?P<help>.*?) \[environment: (?P<variable>\w+)(; default: (?P<default>.*))?\]", re.DOTALL)


def page_paths() -> list[Path]:
    """Return the Markdown files that become pages of the site."""
    return [*ROOT.glob("*.md"), ROOT / "data" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def linked_files(pages: list[Path]) -> set[Path]:
    """The files that pages link to and that are no pages."""
    targets = {(page.parent / link).resolve() for page in pages for link in LINK.findall(page.read_text())}
    return {target for target in targets if target.is_file() and target.suffix != ".md"}


def programs(nav: list[Any]) -> list[str]:
    """The programs whose command line has a page in `nav`."""
    return re.findall(REFERENCE.format(r"(\w+)"), json.dumps(nav))


@cache
def describe(program: str) -> dict[str, Any]:
    """Return what describe.py prints for `program`. Raises PluginError if it fails."""
    python = ROOT / ".venvs" / program / "bin" / "python"
    command = [str(python), str(ROOT / "docs" / "generator" / "describe.py"), program]
    # Variables such as SESSION would change the usage.
    environment = {"PATH": os.environ.get("PATH", ""), "COLUMNS": "88"}
    try:
        return dict(json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout))
    except (OSError, subprocess.CalledProcessError) as error:
        raise PluginError(
            f"cannot describe the program {program}: {error}; run make docs, which creates its environment"
        ) from None


def cell(text: str) -> str:
    """Escape `text` for a cell of a Markdown table."""
    return " ".join(text.replace("|", "\\|").split())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell(text) for text in line)} |" for line in lines)


def option_row(option: dict[str, Any]) -> tuple[str, str, str, str]:
    """Return an option's flag, environment variable, default and meaning."""
    flag, help = f"`{option['flag']}`", option["help"].replace(f"{ROOT}/", "")
    if match := ENVIRONMENT.fullmatch(help):
        default = f"`{match['default']}`" if match["default"] else "required" if option["required"] else ""
        return flag, f"`{match['variable']}`", default, match["help"]
    return flag, "", "required" if option["required"] else "", help


def command_page(program: str) -> str:
    """Return the reference page of a program's command line."""
    parser = describe(program)["parser"]
    summaries = [(f"[`{name}`](#{name})", step["description"].partition("\n")[0]) for name, step in parser["steps"].items()]
    parts = [
        f"# Command line of {program}",
        parser["description"],
        f"By hand: `scripts/step {program} STEP`. In a pod, the operator passes the same arguments. The "
        "[runbook](../runbook.md#exit-codes-and-terminations) lists the exit codes.",
        table(("step", "purpose"), summaries),
    ]
    for name, step in parser["steps"].items():
        # In a description, an indented line is an example.
        description = re.sub(r"(?m)(?:^  \S.*\n?)+", lambda match: f"```sh\n{dedent(match[0])}```\n", step["description"])
        options = table(("option", "environment variable", "default", "meaning"), [option_row(row) for row in step["options"]])
        parts += [f"## {name}", f"```text\n{step['usage']}\n```", description, options]
    return "\n\n".join(parts) + "\n"


def retry_rules(program: str) -> str:
    """Return the table of exit codes and terminations."""
    rows = []
    for rule in describe(program)["retry_rules"]:
        attempts, delay = rule["max_attempts"], rule["delay_seconds"]
        if delay is None and attempts > 1:
            shown = ("the task's `retries`", "the task's `retry_delay`")
        else:
            shown = (str(attempts), f"{delay} s" if attempts > 1 else "")
        rows.append((f"`{rule['cause']}`", rule["meaning"], *shown, rule["advice"]))
    return table(("exit code or termination", "meaning", "attempts", "delay", "what to do"), rows)


def tables(program: str) -> str:
    """Return a section for each table that a step writes, with its columns."""
    parts = []
    for described in describe(program)["tables"]:
        rows = [
            (
                f"`{column['name']}`{', the index' if column['name'] == described['index'] else ''}",
                f"`{column['dtype']}`",
                column["requirement"] + (", or missing" if column["nullable"] else ""),
                column["description"] + (f"; since schema version {column['since']}" if column["since"] > 1 else ""),
            )
            for column in described["columns"]
        ]
        summary = f"A row is {described['description']}. Schema version {described['version']}."
        parts += [f"## {described['file']}", summary, table(("column", "dtype in pandas", "a value is", "what it holds"), rows)]
    return "\n\n".join(parts)


def alerts() -> str:
    """Return the table of the Prometheus alerts."""
    groups = yaml.safe_load((ROOT / "monitoring" / "alerts.yaml").read_text())["groups"]
    rows = []
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        texts = {
            key: re.sub(r"\{\{ ?\$labels\.(\w+) ?\}\}", r"*\1*", re.sub(r"\{\{ ?\$value.*?\}\}", "*N*", text))
            for key, text in rule["annotations"].items()
        }
        section = texts["runbook_url"].partition("#")[2]
        advice = f"{texts['description']} [More](#{section})"
        rows.append((f"`{rule['alert']}`", rule["labels"]["severity"], texts["summary"], advice))
    return table(("alert", "severity", "summary", "what to do"), rows)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision page in the navigation, below the index of decisions."""
    pages = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    for section in config.nav or []:
        if "Explanation" in section:
            section["Explanation"] += [page for page in pages if page not in section["Explanation"]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of the docs folder with the pages of the repository; keep those of the theme."""
    pages = page_paths()
    sources = [*pages, *sorted(linked_files(pages))]
    theme = [file for file in files if file.src_dir != config.docs_dir]
    own = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in sources]
    reference = [
        File.generated(config, REFERENCE.format(program), content=command_page(program))
        for program in programs(config.nav or [])
    ]
    mermaidx = find_spec("mermaidx")  # found, not imported: only its copy of mermaid.js is used
    if mermaidx is None or mermaidx.origin is None:
        raise PluginError("mermaidx is not installed: run make docs")
    script = Path(mermaidx.origin).parent / "assets" / "mermaid.js"
    scripts = {MERMAID: script, SEARCH_FROM_DISK: Path(__file__).with_name("search_from_disk.js")}
    copied = [File.generated(config, path, abs_src_path=str(source)) for path, source in scripts.items()]
    return Files([*theme, *own, *reference, *copied])


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Insert the generated tables, and indent the content of list items as Python-Markdown requires."""
    program = programs(config.nav or [])[0]
    generators = {"retry rules": lambda: retry_rules(program), "tables": lambda: tables(program), "alerts": alerts}
    for name, generate in generators.items():
        if (marker := f"<!-- generated: {name} -->") in markdown:
            markdown = markdown.replace(marker, generate())
    return indent_list_items(markdown)


def indent_list_items(markdown: str) -> str:
    """Indent content of list items that has three spaces, which suffice on GitHub, by the fourth that Python-Markdown needs."""
    lines, fenced = [], False
    for line in markdown.split("\n"):
        if fenced or re.match(r" {3}\S", line):
            fenced ^= line.startswith("   ```")
            lines.append(f" {line}" if line else line)
        else:
            lines.append(line)
    return "\n".join(lines)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load mermaid.js on pages that have a diagram."""
    if 'class="mermaid"' not in output:
        return output
    load = f'<script src="{get_relative_url(MERMAID, page.url)}"></script>'
    start = "<script>mermaid.initialize({startOnLoad: false})</script>"  # the theme draws the diagrams
    return output.replace("</head>", f"{load}{start}</head>", 1)


def on_post_build(config: MkDocsConfig) -> None:
    """Write the search index as a script too, which is how the theme reads it when a page is opened from disk."""
    index = Path(config.site_dir) / "search" / "search_index.json"
    index.with_suffix(".js").write_text(f"var __index = {index.read_text()}")
