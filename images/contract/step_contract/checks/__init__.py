"""The checks of an installation that run in every image: the form of a finding, clocks, the store (decision 35)."""
