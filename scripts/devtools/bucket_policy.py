"""A bucket policy that restricts the steps' key to what steps write; task logs and the monitor's objects are denied."""

from __future__ import annotations

import json
from typing import Any

from devtools.commands import ToolError
from devtools.helm_charts import read_setting

# Where steps write, relative to the root of the artifacts (images/contract/step_contract/paths.py); market_smoke has its own.
STEP_PREFIXES = ("checkpoints", "decisions", "forecasts", "headlines", "models", "pinned-models", "plots", "prices", "smoke")
# What steps delete: the checkpoints of a finished training, and the files of an attempt that was not committed.
DELETED_PATTERNS = ("checkpoints/*", "smoke/*/checkpoints/*", "*/attempt=*")
MONITOR_PREFIX = "monitor"
# Replaced by PRINCIPAL: the user or role of the steps' key.
EXAMPLE_PRINCIPAL = "arn:aws:iam::ACCOUNT:user/STEPS"


def render(manifests: str, principal: str | None = None) -> str:
    """Return the policy as JSON, for the bucket and the prefixes in the rendered manifests.

    Raises ToolError if the artifacts are not in a bucket.
    """
    artifacts, logs = read_setting(manifests, "artifacts"), read_setting(manifests, "remote_base_log_folder")
    return json.dumps(make_policy(artifacts, logs, principal or EXAMPLE_PRINCIPAL), indent=2)


def make_policy(artifacts: str, logs: str, principal: str) -> dict[str, Any]:
    """Return the policy of the bucket with the artifacts.

    Args:
        artifacts: the root of the artifacts, `s3://bucket/prefix`.
        logs: the root of the task logs.
        principal: the user or role of the steps' key, as the bucket's server names it.

    Raises:
        ToolError: the artifacts are not in a bucket.
    """
    if not artifacts.startswith("s3://"):
        raise ToolError(f"artifacts {artifacts!r} is not in a bucket: a policy applies to s3://bucket/prefix only")
    bucket, root = _parse_arn(artifacts)
    denied = [f"{root}/{MONITOR_PREFIX}/*"]
    if logs.startswith("s3://") and _parse_arn(logs)[0] == bucket:
        denied.append(f"{_parse_arn(logs)[1]}/*")

    def make_statement(sid: str, effect: str, actions: list[str], resources: list[str]) -> dict[str, Any]:
        return {"Sid": sid, "Effect": effect, "Principal": {"AWS": principal}, "Action": actions, "Resource": resources}

    written = [f"{root}/{prefix}/*" for prefix in STEP_PREFIXES]
    return {
        "Version": "2012-10-17",
        "Statement": [
            make_statement("StepsReadAndWrite", "Allow", ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], written),
            make_statement("StepsDelete", "Allow", ["s3:DeleteObject"], [f"{root}/{pattern}" for pattern in DELETED_PATTERNS]),
            # Of the whole bucket: with a condition on the prefix, a missing object would be forbidden (403), not missing (404).
            make_statement("StepsList", "Allow", ["s3:ListBucket"], [bucket]),
            # Takes precedence over any other policy that allows this principal more.
            make_statement("StepsNeverLogsOrMonitor", "Deny", ["s3:*"], denied),
        ],
    }


def _parse_arn(uri: str) -> tuple[str, str]:
    """Return the ARNs of the bucket and of the root that an s3:// URI names."""
    bucket, _, prefix = uri.removeprefix("s3://").rstrip("/").partition("/")
    arn = f"arn:aws:s3:::{bucket}"
    return arn, f"{arn}/{prefix}".rstrip("/")
