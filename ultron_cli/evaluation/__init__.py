"""Metrics of the revisited protocols."""
