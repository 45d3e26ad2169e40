"""Sweeps: many settings of extraction, whitening, index, search and re-ranking, and nothing computed twice."""
