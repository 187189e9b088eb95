"""The command `check`: whether PyTorch computes on this node."""

from __future__ import annotations

import time
from collections.abc import Iterator

from step_contract.checks.findings import Finding, error, ok

from trainer.threads import thread_count


def check_torch() -> Iterator[Finding]:
    """Fit a convolution to a known kernel for a few steps, and yield whether it converges; a wrong build may crash instead."""
    started = time.monotonic()
    import torch

    torch.set_num_threads(thread_count())
    generator = torch.Generator().manual_seed(1)
    series = torch.randn((8, 1, 64), generator=generator)
    kernel = torch.tensor([[[0.5, -1.0, 0.25]]])
    target = torch.nn.functional.conv1d(series, kernel)
    layer = torch.nn.Conv1d(1, 1, 3)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(layer(series), target)
        loss.backward()
        optimizer.step()
    version, seconds = torch.__version__, time.monotonic() - started
    if not loss.item() < 0.01:
        yield error("torch", f"torch {version} computes wrong values on this node: loss {loss.item():.3g}", "use another node")
    else:
        yield ok("torch", f"torch {version} computes with {torch.get_num_threads()} threads; {seconds:.1f} s with its import")
