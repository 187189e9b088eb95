"""Decides whether the exchange was open, and collects the day's prices and headlines.

`cli` parses the options. The steps are `decide`, `fetch_prices` and `fetch_headlines`. `source` reads the source's files;
`year_file` and `bar_checks` validate a price file, `prices` stores a bar and its corrections, `feed_parsing` validates a feed.
"""
