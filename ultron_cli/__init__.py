"""Ultron: landmark retrieval experiments from photographs to mAP. Start at cli.py (commands) or models/ (the model
core)."""

__version__ = "0.1.0"
