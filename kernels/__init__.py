"""The operators that the ULTRON network stands on, the first pass of exact search, and the nearest features of
two photos. Imports nothing from ultron_cli.

The operators need PyTorch, which takes seconds to import, and are loaded when they are asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ultron_kernels.ops import build_all, cdconv, scala_attention, status

__all__ = ["build_all", "cdconv", "scala_attention", "status"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from ultron_kernels import ops

        return getattr(ops, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
