"""One run of the DAG inside one process."""
