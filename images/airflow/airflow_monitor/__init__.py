"""Watches Airflow from outside and tells Slack what it sees."""
