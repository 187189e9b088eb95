"""The texts and blocks of what the monitor posts to Slack: pure functions of a snapshot."""
