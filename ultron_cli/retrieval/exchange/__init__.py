"""Rankings from and for other tools: a file per format, and run.py, what they share. A format is an entry of
RANK_FORMATS.

importing.py makes a Ranking of a file of somebody else, exporting.py writes one. Names are matched by
datasets/name_matching.py.
"""

from ultron_cli.retrieval.exchange import comma, mappings, pairs, results, trec
from ultron_cli.retrieval.exchange.run import RankFormat

RANK_FORMATS: dict[str, RankFormat] = {
    "trec": trec.FORMAT,
    "csv": comma.FORMAT,
    "ranx": mappings.RANX,
    "json": results.FORMAT,
    "ilias": mappings.ILIAS,
    "hloc": pairs.HLOC,
    "colmap": pairs.COLMAP,
    "kapture": pairs.KAPTURE,
}
