"""Describe a program's command line, the retry rules and the tables as JSON, for the reference pages.

    .venvs/collector/bin/python docs/generator/describe.py collector

It runs in the environment of the program's image, which has what `PROGRAM.cli` imports.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from typing import Any

from step_contract.errors import RETRY_RULES, ExitCode
from step_contract.schemas import TABLES


def describe_parser(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the parser's usage, description, options and, by name, its steps."""
    formatter = parser._get_formatter()
    options, steps = [], {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            steps = {name: describe_parser(step) for name, step in action.choices.items()}
        elif not isinstance(action, argparse._HelpAction):
            flag = " ".join([", ".join(action.option_strings), str(action.metavar) if action.nargs != 0 else ""]).strip()
            options.append({"flag": flag, "help": formatter._expand_help(action), "required": action.required})
    usage = parser.format_usage().removeprefix("usage: ").strip()
    return {"usage": usage, "description": parser.description, "options": options, "steps": steps}


def describe_retry_rules() -> list[dict[str, Any]]:
    """Return a row for each exit code and termination."""
    return [
        {
            "cause": str(cause.value) if isinstance(cause, ExitCode) else cause.value.replace("_", " "),
            "meaning": rule.meaning,
            "max_attempts": rule.max_attempts,
            "delay_seconds": rule.delay_seconds,
            "advice": rule.advice,
        }
        for cause, rule in RETRY_RULES.items()
    ]


def describe_tables() -> list[dict[str, Any]]:
    """Return each table with a row for each of its columns."""
    return [
        {
            "file": table.file,
            "version": table.version,
            "description": table.description,
            "index": table.index,
            "columns": [
                {
                    "name": column.name,
                    "dtype": column.dtype,
                    "requirement": column.requirement,
                    "nullable": column.nullable,
                    "description": column.description,
                    "since": column.since,
                }
                for column in table.columns
            ],
        }
        for table in TABLES
    ]


if __name__ == "__main__":
    parser = import_module(f"{sys.argv[1]}.cli").build_parser()
    described = {"parser": describe_parser(parser), "retry_rules": describe_retry_rules(), "tables": describe_tables()}
    json.dump(described, sys.stdout)
