"""One run of the DAG in an Airflow that is embedded in one process, with Slack or the simulator."""
