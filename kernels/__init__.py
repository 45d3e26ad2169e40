"""The operators that the ULTRON network stands on. Imports nothing from ultron_cli."""

from ultron_kernels.ops import build_all, cdconv, scala_attention, status

__all__ = ["build_all", "cdconv", "scala_attention", "status"]
