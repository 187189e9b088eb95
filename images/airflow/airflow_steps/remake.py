"""The DAG's param `remake`: a person's reason to make the artifacts of a run anew (`step_contract.revisions`)."""

from __future__ import annotations

from airflow.sdk import Param
from step_contract.revisions import MAX_REMAKE_LENGTH

# Kubernetes replaces $(NAME) in a pod's arguments by the value of an environment variable, which may be a secret, and $$ by $.
PATTERN = r"^(?![\s\S]*\$[($])"
# Null too, as Airflow's form requires a text of every other param.
PARAM = Param(
    "",
    type=["null", "string"],
    maxLength=MAX_REMAKE_LENGTH,
    pattern=PATTERN,
    title="Remake",
    description="Leave empty for a normal run, whose steps return what is committed. With a reason, every step makes its "
    "artifact anew, beside the earlier revisions, and records the reason: for example after a change of its logic or its "
    "columns. Repeating the run with the same reason makes no other revision.",
)
OPTION = {"remake": "{{ params.remake or '' }}"}
