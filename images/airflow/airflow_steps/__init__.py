"""Runs the pipeline's steps as Airflow tasks, and tells Slack."""
