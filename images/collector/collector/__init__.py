"""Decides whether the exchange was open, and collects the day's prices and headlines.

`cli` parses the options. The steps are `decide`, `fetch_prices` and `fetch_headlines`. `exchange_calendar` combines the
calendar of `calendar_cache` with overrides.csv (holidays that it lacks). `source` reads the source's files, through
`http_client` if they are on the web. `year_file` parses a price file into a table of bars, and `bar_checks` checks them.
`prices` stores a bar and its revisions. `feeds` reads the list of feeds, `feed_parsing` parses one into a table of headlines,
and `feed_coverage` determines whether it still holds the session's day. Tables are pandas.DataFrames as
`step_contract.schemas` declares them.
"""
