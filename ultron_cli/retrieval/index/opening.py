"""Opens an index folder of any engine."""

import os
from pathlib import Path

from ultron_cli.errors import UltronError
from ultron_cli.retrieval.index.base import StoredIndex
from ultron_cli.retrieval.index.faiss_index import FORMAT, open_faiss
from ultron_cli.retrieval.index.of_users import FORMAT as USER_FORMAT
from ultron_cli.retrieval.index.of_users import open_user_index
from ultron_cli.retrieval.milvus.index import FORMAT as MILVUS_FORMAT
from ultron_cli.retrieval.milvus.index import open_milvus
from ultron_cli.schema.texts import read_json
from ultron_cli.schema.values import shown


def open_index(path: Path) -> StoredIndex:
    """Opens an index folder; what lies in Milvus is connected to.

    Raises UltronError if it is absent, damaged, of a newer format, or stale: its descriptor file now has other
    contents.
    """
    if not path.is_dir():
        kind = "a file" if os.path.exists(path) else "nothing"
        raise UltronError(f"index {path} must be a folder that `ultron index` made, found {kind}; name another")
    description = read_json(
        path / "index.json", "index description", dict[str, object], advice="run `ultron index --overwrite` again"
    )
    stored_format = description.get("format")
    if stored_format == MILVUS_FORMAT:
        return open_milvus(path, description)
    if stored_format == USER_FORMAT:
        return open_user_index(path, description)
    if stored_format != FORMAT:
        raise UltronError(
            f"{path} is not an index: format in index.json must be {FORMAT!r}, found {shown(stored_format)}; "
            "run `ultron index`"
        )
    return open_faiss(path, description)
