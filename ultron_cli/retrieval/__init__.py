"""Descriptors, exact search, indexes and rankings."""
