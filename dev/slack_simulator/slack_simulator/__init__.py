"""A stand-in for Slack's HTTP interface: takes what Slack takes, refuses what Slack refuses, and shows what was sent."""
