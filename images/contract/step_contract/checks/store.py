"""Whether the store of the artifacts keeps the promises that the commit protocol relies on: a check for `make doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from step_contract import paths
from step_contract.checks.clocks import compare_clocks
from step_contract.checks.findings import Finding, error, ok, warning
from step_contract.errors import ConfigurationError, StepError, TransientError
from step_contract.store import Store

CHECK = "bucket"


def check_store(make_store: Callable[[], Store]) -> Iterator[Finding]:
    """Create an object, try to create it again, read it and remove it. Yield what was found, also of the store's clock.

    Args:
        make_store: returns the store of the artifacts; may raise StepError.
    """
    try:
        store = make_store()
    except StepError as problem:
        yield error(CHECK, str(problem), "correct the setting artifacts")
        return
    attempt = uuid4().hex[:12]
    folder = paths.store_check(attempt)
    path, content = f"{folder}/object", uuid4().hex.encode()
    try:
        started = datetime.now(UTC)
        created = store.create(path, content)
        finished = datetime.now(UTC)
        again = store.create(path, b"overwritten")
        read = store.read(path)
        stored_at = store.modified_at(path)
    except (ConfigurationError, TransientError) as problem:
        advice = "check AWS_ENDPOINT_URL, the network policy network.bucket, and whether the server runs"
        if isinstance(problem, ConfigurationError):
            advice = "check the bucket's name, the key in the secret, and its policy (make bucket-policy)"
        yield error(CHECK, str(problem).replace(attempt, "…"), advice)  # the same text in every pod
        return
    finally:
        with suppress(StepError):
            store.remove_folder(folder)
    if not created or again or read != content:
        problem_text = "overwrote an object that exists" if again else "did not return what was written"
        yield error(
            CHECK,
            f"{store.root} {problem_text} although If-None-Match: * was sent",
            "use a server that supports conditional writes (docs/deploy.md): without them, two attempts of a step "
            "can both commit",
        )
    elif store.list(folder):
        advice = "allow s3:DeleteObject for */attempt=*, as the policy of make bucket-policy does"
        yield warning(CHECK, f"{store.uri(folder)} could not be removed", advice)
    else:
        yield ok(CHECK, f"{store.root}: written, refused a second time (If-None-Match), read and removed")
    if stored_at is not None:
        yield compare_clocks("the store", stored_at, started, finished, resolution=timedelta(seconds=1))
