"""Which processor a program is built for, and which one it runs on."""

from __future__ import annotations

import platform
from pathlib import Path

MACHINE = "machine: "  # a line of the log that begins so says it
KERNEL = Path("/proc/sys/kernel/arch")  # Linux 6.1 and later; an emulated process sees the real one


def machine(kernel: Path = KERNEL) -> str:
    """The processor that this program is built for, and that of the node, where its kernel says it."""
    built = platform.machine()
    try:
        node = kernel.read_text().strip()
    except OSError:
        return f"image {built}, node unknown"
    return f"image {built}, node {node}" + ("" if node == built else " (emulated)")
