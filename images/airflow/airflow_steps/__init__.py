"""Runs the pipeline's steps as Airflow tasks, in pods that the triggerer creates and follows.

The way of a step, from its DAG to its pod and back to XCom: `operator` makes the task; `trigger` runs it from the triggerer;
`pods.lifecycle` creates the pod that `pods.spec` describes, `pods.follower` follows it; `outcome` verifies what it reports, and
`retry_policy` decides about another attempt. `triggerer` is the process; the other modules are what these use.
"""
