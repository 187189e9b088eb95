"""Runs a step as a process on this machine, in its image's environment."""

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

from airflow_steps.termination import Ended, machine_in

ENVIRONMENTS = "STEP_ENVIRONMENTS"
LAST_LINES = 20
STOP_SECONDS = 10.0


def program_of(image: str, environment: Mapping[str, str]) -> Path:
    """The program of `image`, which has the image's name; raises ConfigurationError where it is not installed."""
    folder = environment.get(ENVIRONMENTS)
    program = Path(folder or "", image, "bin", image)
    if not folder or not program.exists():
        raise ConfigurationError(f"{program} is not there: {ENVIRONMENTS} must name the folder of the images' environments")
    return program


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` as a step may see it: nothing of Airflow's, whose variables hold the database's and Slack's secrets."""
    hidden = ("AIRFLOW", "PYTHONPATH", "VIRTUAL_ENV", "__")
    return {name: value for name, value in environment.items() if not name.startswith(hidden)}


class StepProcess:
    """One step as a process in a process group of its own."""

    def __init__(self, image: str, arguments: Sequence[str]) -> None:
        self._command = [str(program_of(image, os.environ)), *arguments]
        self._process: subprocess.Popen[str] | None = None

    def run(self, tell: Callable[[str], None]) -> Ended:
        """Runs the step to its end, handing each line that it prints to `tell`. Leaves no process behind."""
        last: deque[str] = deque(maxlen=LAST_LINES)
        said: str | None = None
        with tempfile.TemporaryDirectory(prefix="step-") as folder:
            result = Path(folder, "result.json")
            environment = step_environment(os.environ) | {RESULT_VARIABLE: str(result), "PYTHONUNBUFFERED": "1"}
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
                    last.append(line.rstrip())
                    said = machine_in(line) or said
                    tell(line.rstrip())
                code = self._process.wait()
            finally:
                self.stop()
            return Ended(code, result.read_bytes() if result.exists() else b"", tuple(last), machine=said)

    def stop(self) -> None:
        """Ends the process and its children: asked first, killed when they do not go."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for ask in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, ask)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                return
