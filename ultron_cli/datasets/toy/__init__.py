"""Rendered landmarks: buildings of nine kinds from many sides, with exact ground truth and no download.

The renderer is closed and frozen: the same settings give the same photos, byte for byte, on every machine, and stored
results depend on it. What other packages may use of it is what this file names.
"""

from ultron_cli.datasets.toy.dataset import ToyConfig, make_toy

__all__ = ["ToyConfig", "make_toy"]
