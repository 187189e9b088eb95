"""Steps for drills: the collector's image with another command, so that a test decides how a step behaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_steps.operator import StepOperator

COMMIT = """
import os, sys, time
from datetime import date
from step_contract.commit import Content, commit
from step_contract.result import PLATFORM_PREFIX, describe_platform
from step_contract.result import Result
from step_contract.store import Store

def option(name, default):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default

step, seconds, code = sys.argv[1], float(option("--seconds", "0")), int(option("--code", "0"))
print(PLATFORM_PREFIX + describe_platform(), flush=True)
if "--crash" in sys.argv:
    import ctypes
    ctypes.string_at(0)
ballast = b"x" * (int(option("--megabytes", "0")) * 2**20)
if "--disk" in sys.argv:
    with open("/tmp/filled", "wb") as file:
        file.write(b"x" * (int(option("--disk", "0")) * 2**20))
for number in range(int(option("--lines", "0"))):
    print(f"line {number:06} of many: {'x' * 230}")
for second in range(int(seconds)):
    print("second", second + 1, flush=True)
    time.sleep(1)
if code:
    open(os.environ["STEP_RESULT"], "wb").write(Result(error=f"exits with code {code}, as requested").to_json())
    sys.exit(code)
content = Content({"drill.txt": step.encode()}, rows=1, schema_version=1, facts={"host": os.uname().nodename})
store, session = Store(option("--artifacts", "")), date(2026, 1, 15)
committed = commit(store, f"drills/{step}", step=step, session=session, inputs={}, content=content)
open(os.environ["STEP_RESULT"], "wb").write(Result(committed.uri, {"host": os.uname().nodename}).to_json())
"""
REPORT_MANIFEST = """printf '{"manifest": "%s", "facts": {}, "error": null}' "$1" > "$STEP_RESULT"; sleep "$2" """


def python_step(
    task_id: str, *, step: str = "drill", options: Mapping[str, str | None] | None = None, **more: Any
) -> StepOperator:
    """Return a step that prints for `seconds`, then exits with `code` or commits the artifact `drills/STEP`.

    Other options: `crash`; `megabytes` of memory to allocate; `disk`, megabytes to write; `lines` to print at once.
    """
    return StepOperator(
        task_id=task_id,
        program="collector",
        step=step,
        options={"artifacts": "s3://market/artifacts"} | dict(options or {}),
        **({"cmds": ["/venv/bin/python", "-c", COMMIT]} | more),
    )


def shell_step(task_id: str, manifest: str, *, seconds: float = 0, **more: Any) -> StepOperator:
    """Return a step that needs almost no resources: it reports an existing manifest."""
    return StepOperator(
        task_id=task_id,
        program="collector",
        step="noop",
        options={},
        cmds=["sh", "-c", REPORT_MANIFEST, "sh"],
        arguments=[manifest, str(seconds)],
        **more,
    )
