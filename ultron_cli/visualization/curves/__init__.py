"""Figures of numbers: training curves, precision and recall, recall and speed of indexes, bars of an ablation."""
