"""Trains the forecaster on the index's sessions and plots its forecast."""
