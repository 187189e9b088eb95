"""A simulator of Slack: the Web API as far as the monitor calls it, and a page that shows the channel.

`web_api` implements the methods, `block_kit` Slack's limits of a message, `workspace` holds what was sent. `page` and `mrkdwn`
render it as HTML. `server` serves both over HTTP and injects the faults of `simulator`.
"""
