"""What this project uses of Airflow, its providers and kubernetes_asyncio that is not their public interface.

Every other module imports such things only from here, and `tests/unit/airflow/test_internals_*.py` has a contract test for
each. After an upgrade, they show at one place what broke. Docstrings say what is relied on, as of Airflow 3.3.2, task SDK 1.3.2
and cncf-kubernetes 10.25, and what to change. docs/upgrade.md has the procedure.

Nothing is imported here: a module is imported by whoever needs it, and `heartbeats` and `single_task_dag.select_task` run where
Airflow's ORM is not loaded.
"""
