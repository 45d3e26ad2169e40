"""source.json: written and read again."""

import json
from pathlib import Path

import pytest

from ultron_cli.datasets.download.source_record import SourceRecord, read_source
from ultron_cli.errors import UltronError


def test_a_record_is_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "source.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(UltronError, match=r"record of the download .*format holds .other."):
        read_source(tmp_path)
    record = SourceRecord(dataset="x")
    record.write(tmp_path)
    assert read_source(tmp_path) == record
