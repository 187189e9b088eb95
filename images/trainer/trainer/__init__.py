"""Train the forecaster on an index's sessions and plot its forecasts.

`cli` parses the options. `partitions` selects the price partitions that a step reads: the latest ones, given ones, or those
that a model records. The step `train`: `dataset` reads the prices and standardizes the log returns (`Scaler`), `config`
reads the file model.toml; `evaluation` compares walk-forward forecasts (time series cross-validation, without look-ahead, so
without data leakage) with baselines by `scores`, `calibration` gives their prediction intervals the nominal coverage,
`fitting` fits the network that `model` defines, `checkpoint` lets it resume, `threads` chooses the number of CPU threads.
`model_registry` promotes a model that is significantly better, and rolls it back.

The step `forecast`: the package `daily_forecast`.

The step `plot`: `forecast_history` reads the forecasts of earlier sessions, `figure` draws, `texts` has all words of the plot.
"""
