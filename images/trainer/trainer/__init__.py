"""Train the forecaster on an index's sessions and plot its forecasts."""
