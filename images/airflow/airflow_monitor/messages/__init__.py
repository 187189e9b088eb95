"""The messages that the monitor posts to Slack, as pure functions of a snapshot."""
