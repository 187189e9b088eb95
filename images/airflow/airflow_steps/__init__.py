"""Runs the pipeline's steps as Airflow tasks, in pods that the triggerer creates and follows."""
