"""What made a result: one frozen type that search writes and that evaluation, figures, the report and the page read.

Files hold it as JSON (`provenance` of rank files and evaluations, `config` of descriptor files) with the keys of
docs/file-formats.md, which this package alone reads. What it does not know it keeps, so that a file that passes
through loses nothing. A file made elsewhere may hold part of it only: what is absent is None or empty.

whole.py has the Origin and what two of them differ in; extraction.py, sources.py, imported.py, search.py and fusion.py
its parts.
"""

from ultron_cli.retrieval.origin.extraction import (
    ExtractionRecord,
    StoredExtraction,
    WhiteningRecord,
)
from ultron_cli.retrieval.origin.fusion import FUSED_MODEL, FusedPart, FusionRecord, TuningRecord
from ultron_cli.retrieval.origin.imported import ImportRecord
from ultron_cli.retrieval.origin.search import DistractorRecord, SearchRecord, StepRecord
from ultron_cli.retrieval.origin.sources import (
    DescriptorProvenance,
    LearnedFrom,
    SkippedPhoto,
    StoredSkippedPhoto,
    WeightsSource,
)
from ultron_cli.retrieval.origin.values import Json
from ultron_cli.retrieval.origin.whole import EXTRACTION_WORDS, Origin, StoredOrigin

__all__ = [
    "EXTRACTION_WORDS",
    "FUSED_MODEL",
    "DescriptorProvenance",
    "DistractorRecord",
    "ExtractionRecord",
    "FusedPart",
    "FusionRecord",
    "ImportRecord",
    "Json",
    "LearnedFrom",
    "Origin",
    "SearchRecord",
    "SkippedPhoto",
    "StepRecord",
    "StoredExtraction",
    "StoredOrigin",
    "StoredSkippedPhoto",
    "TuningRecord",
    "WeightsSource",
    "WhiteningRecord",
]
