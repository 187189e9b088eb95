"""Monitors Airflow through its REST API and reports to Slack."""
