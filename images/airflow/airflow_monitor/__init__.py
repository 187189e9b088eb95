"""Monitors Airflow through its REST API and reports to Slack.

The path of a message: `__main__` reads the settings (the chart passes all of `config.market_daily`), polls every few seconds
and calls `reconciler`. `snapshot` reads everything from Airflow: `airflow_client` makes the requests, `airflow_responses`
parses the responses, `run_tracker` and `backfill_tracker` keep what has not changed, and `failure_reader` adds
the reasons that the callbacks stored. `models` defines what was read, and the thresholds. `messages` turns it into threads of
messages, as pure functions: `runs`, `forecasts`, `completion`, `failures`, `backfills`, and `incidents` of Airflow itself,
which `incident_tracker` opens and resolves. `delivery` posts or edits what differs from the records in `state`, through
`slack_client`.

`metrics` computes the gauges; `slack_check` is `make slack-test`.
"""
