"""The step `forecast`: on each open day, a forecast from the current model or a baseline, and what became of earlier ones.

`step` commits the artifact. `current_model` loads the network that was current when the session closed and forecasts with it,
`baseline` forecasts without one. `performance` reads the forecasts that were issued before and scores those whose outcome is
known; `drift` tests whether the scores have become worse than they were meant to be.
"""
