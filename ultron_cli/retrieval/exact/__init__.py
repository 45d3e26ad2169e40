"""Exact search by inner product, with the same result on every device, whatever the blocks and threads.

search.py leads the way, candidates.py goes through a part of the database and keeps the rows that may be among the
best, scores.py gives those their final score. index.py is exact search as one of the kinds of index.
"""

from ultron_cli.retrieval.exact.search import exact_search

__all__ = ["exact_search"]
