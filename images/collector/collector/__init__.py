"""Decides whether the exchange was open, and collects the day's prices and headlines."""
