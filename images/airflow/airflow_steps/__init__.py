"""Runs the pipeline's steps as Airflow tasks, in pods that the triggerer creates and follows.

The path of a step, from its DAG to its pod and back to XCom:

1. `operator.StepOperator` makes the task, its arguments (`make_arguments`) and the pod's template (`pods.spec`, which sets
   STEP_RESULT to the container's termination log). `_start_from_trigger` makes the scheduler defer the task at once.
2. `trigger.StepTrigger.run`, in the triggerer, renders the templates (`airflow_internals.triggers`), creates the pod once there
   is a slot (`pods.lifecycle.create_pod`) and calls `pods.follower.PodFollower.wait`, which copies the log (`pods.log`) and
   returns an `ExitStatus`.
3. In the pod, the ENTRYPOINT is the program. Its `cli.main` calls `step_contract.cli.run_step`, which calls the step's function
   in the same `cli` and writes its `Result` to the file STEP_RESULT, the container's termination message.
4. `PodFollower.wait` takes that message from the pod's status (`pods.status.get_exit_status`), and `outcome.verify_outcome`,
   called by `StepTrigger._make_event`, verifies the artifact that it names.
5. Success: `StepTrigger.run` stores the XComs `return_value` (the manifest's URI) and `facts`, then ends the task. For any
   other outcome but exit code 99, which skips the task, a worker raises the error (`StepOperator.execute_complete`), and
   `retry_policy` decides whether to retry.

`lineage_events` reports to OpenLineage what a step has read and written; `triggerer` is the process; `failure_log` records
failures for the monitor; `remake` is the param with which a run makes its artifacts anew; the other modules are what these
use.
"""
