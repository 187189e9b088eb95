"""Runs a step as a local process, in its image's virtual environment, without a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from step_contract.errors import ConfigurationError
from step_contract.result import RESULT_VARIABLE

from airflow_steps.termination import MAX_LAST_LINES, ExitStatus, parse_platform

ENVIRONMENTS_VARIABLE = "STEP_ENVIRONMENTS"
STOP_TIMEOUT_SECONDS = 10.0


def find_program(program: str, environment: Mapping[str, str]) -> Path:
    """Return the path of `program`. Raises ConfigurationError if it is not installed."""
    folder = environment.get(ENVIRONMENTS_VARIABLE)
    path = Path(folder or "", program, "bin", program)
    if not folder or not path.exists():
        raise ConfigurationError(
            f"{path} does not exist: {ENVIRONMENTS_VARIABLE} must name the folder of the images' virtual environments"
        )
    return path


def filter_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without Airflow's variables, which hold the secrets of the database and of Slack."""
    hidden = ("AIRFLOW", "PYTHONPATH", "VIRTUAL_ENV", "__")
    return {name: value for name, value in environment.items() if not name.startswith(hidden)}


class StepProcess:
    """A step as a process, in a process group of its own, with `variables` in addition to this process's environment."""

    def __init__(self, program: str, arguments: Sequence[str], variables: Mapping[str, str]) -> None:
        self._command = [str(find_program(program, os.environ)), *arguments]
        self._variables = dict(variables)
        self._process: subprocess.Popen[str] | None = None

    def run(self, write_line: Callable[[str], None]) -> ExitStatus:
        """Run the step, passing each line that it prints to `write_line`. Leaves no process behind."""
        last_lines: deque[str] = deque(maxlen=MAX_LAST_LINES)
        platform: str | None = None
        with tempfile.TemporaryDirectory(prefix="step-") as folder:
            result = Path(folder, "result.json")
            environment = filter_environment(os.environ) | self._variables
            environment |= {RESULT_VARIABLE: str(result), "PYTHONUNBUFFERED": "1"}
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            try:
                for line in self._process.stdout or ():
                    last_lines.append(line.rstrip())
                    platform = parse_platform(line) or platform
                    write_line(line.rstrip())
                code = self._process.wait()
            finally:
                self.stop()
            return ExitStatus(code, result.read_bytes() if result.exists() else b"", tuple(last_lines), platform=platform)

    def stop(self) -> None:
        """Terminate the process and its children: SIGTERM, then SIGKILL."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_SECONDS)
                return
