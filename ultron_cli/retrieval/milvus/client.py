"""A collection in Milvus: the connection to it, and every call that goes over it, tried again while the server is away.

Row i of a descriptor file is the entity with primary key i, so that writing a row twice leaves one. What a collection
was made from stands in its description, as JSON (milvus-lite keeps no descriptions; there it is a property). Milvus's
limits: https://milvus.io/docs/limitations.md
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.console import log
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder
from ultron_cli.retrieval.milvus.place import Place
from ultron_cli.retrieval.origin import Json
from ultron_cli.retrieval.rankings import PADDING
from ultron_cli.schema.texts import parse_json

MOST_RANKED = 16384  # photos per query, and queries per call
MESSAGE_BYTES = 1 << 23  # of queries or of results in one call
NAME_BYTES = 4096  # of a photo name in UTF-8
CONSISTENCY = "Strong"  # a search sees every row written before it
TRIES = 6
FIRST_WAIT_S = 0.5  # between tries; it doubles
LONGEST_WAIT_S = 8.0
CONNECT_S = 5.0  # until a connection counts as failed
CALL_S = 60.0  # until one call counts as failed
PROPERTY = "ultron"

T = TypeVar("T")


class Milvus:
    """One collection of a server, connected. Close it, or use it as a context manager."""

    def __init__(self, place: Place, sleep: Callable[[float], None] = time.sleep) -> None:
        """sleep: waits so many seconds between tries."""
        self.place = place
        self.sleep = sleep
        pymilvus = load_pymilvus(local=place.is_local)
        token = place.token()
        self.schema_of = pymilvus.MilvusClient.create_schema
        self.types = pymilvus.DataType
        if place.is_local:
            make_folder(Path(place.uri).parent, "name another `uri`")
            if Path(place.uri).is_file():
                raise UltronError(
                    f"{place.uri} must be a folder of milvus-lite 3 or absent, found a file (older ones wrote "
                    "files); name another with `uri`"
                )
        # With private subchannels a new try really connects; gRPC's shared ones decide themselves when to try again.
        options = {"grpc.use_local_subchannel_pool": 1}
        self.client = self.with_retries(
            "connect", lambda: pymilvus.MilvusClient(place.uri, token=token, timeout=CONNECT_S, grpc_options=options)
        )
        self.is_lite = self.call("get_server_version").startswith("milvus_lite")

    def __enter__(self) -> "Milvus":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Disconnects; a milvus-lite database is closed, so that another process can open it."""
        self.client.close()
        if self.place.is_local:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.place.uri)

    def with_retries(self, what: str, action: Callable[[], T]) -> T:
        """What the action returns; it is repeated after waits that double, TRIES times in all, while the server cannot
        be reached.

        Raises WorkFailed when it stays away or refuses.
        """
        import grpc
        from pymilvus.exceptions import MilvusException

        attempt = 0
        while True:
            attempt += 1
            try:
                return action()
            except (MilvusException, grpc.RpcError, grpc.FutureTimeoutError) as error:
                reason = reason_of(error)
                if not is_passing(error) or self.place.is_local:
                    lacks_rights = grpc_code(error) in ("UNAUTHENTICATED", "PERMISSION_DENIED")
                    look_at = "the token" if lacks_rights else "its log"
                    ways = ["name the token's variable with `token_env`"] if lacks_rights else []
                    raise WorkFailed(
                        f"Milvus at {self.place.uri} did not {what} ({reason}); check {look_at}", *ways
                    ) from error
                if attempt == TRIES:
                    raise WorkFailed(
                        f"Milvus at {self.place.uri} cannot be reached, tried {TRIES} times ({reason}); start it, then "
                        "run the same command again: it continues",
                        "check `uri`",
                    ) from error
                wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1))
                log.warning(
                    "Milvus at %s cannot be reached (%s); trying again in %.1f s (try %d of %d)",
                    self.place.uri,
                    reason,
                    wait_s,
                    attempt + 1,
                    TRIES,
                )
                self.sleep(wait_s)

    def call(self, method: str, *arguments: object, timeout: float | None = CALL_S, **settings: object) -> Any:
        """A method of pymilvus's client: whatever it gives. timeout: seconds; None where the server may need long."""
        return self.with_retries(
            method.replace("_", " "), lambda: getattr(self.client, method)(*arguments, timeout=timeout, **settings)
        )

    def record(self) -> Json | None:
        """What the collection was made from, {} if another program made it, None if it does not exist."""
        name = self.place.collection
        if not self.call("has_collection", name):
            return None
        collection = self.call("describe_collection", name)
        properties = collection.get("properties") or {}
        for text in (collection.get("description"), properties.get(PROPERTY)):
            if not text:
                continue
            with contextlib.suppress(TypeError, ValueError):
                record: object = parse_json(text)
                if isinstance(record, dict) and record.get("format") == "ultron-milvus":
                    return record
        return {}

    def create(self, record: Json, dim: int) -> None:
        """Makes the collection, empty and without an index."""
        text = json.dumps(record, sort_keys=True)
        schema = self.schema_of(auto_id=False, enable_dynamic_field=False, description=text)
        schema.add_field("row", self.types.INT64, is_primary=True)
        schema.add_field("name", self.types.VARCHAR, max_length=NAME_BYTES)
        schema.add_field("descriptor", self.types.FLOAT_VECTOR, dim=dim)
        properties: dict[str, object] = {"properties": {PROPERTY: text}} if self.is_lite else {}
        properties["consistency_level"] = CONSISTENCY
        self.call("create_collection", self.place.collection, timeout=CALL_S, schema=schema, **properties)

    def build_index(self, index_type: str, build: dict[str, int]) -> None:
        """Declares the index, if there is none: Milvus builds it as rows come. build: the index type's own
        parameters."""
        if self.call("list_indexes", self.place.collection):
            return
        index = self.client.prepare_index_params()
        # milvus-lite reads the parameters as one entry of JSON, servers each by its name.
        index.add_index(
            "descriptor", index_type=index_type, metric_type="IP", params={"params": build} if self.is_lite else build
        )
        self.call("create_index", self.place.collection, index, timeout=None)

    def drop(self) -> None:
        """Deletes the collection."""
        self.call("drop_collection", self.place.collection)

    def load(self) -> None:
        """Brings the collection into the server's memory, as counting and searching need."""
        self.call("load_collection", self.place.collection, timeout=None)

    def count(self) -> int:
        """Rows in the collection."""
        entities = self.call(
            "query", self.place.collection, filter="", output_fields=["count(*)"], consistency_level=CONSISTENCY
        )
        return int(entities[0]["count(*)"])

    def write(self, first_row: int, descriptors: np.ndarray, names: list[str]) -> None:
        """Writes (n, D) float32 rows, replacing those that are there."""
        rows = range(first_row, first_row + len(descriptors))
        entities = [
            {"row": row, "name": name, "descriptor": values}
            for row, name, values in zip(rows, names, descriptors, strict=True)
        ]
        self.call("upsert", self.place.collection, entities)

    def flush(self) -> None:
        """Makes the server store what was written."""
        self.call("flush", self.place.collection, timeout=None)

    def nearest(self, queries: np.ndarray, n: int, params: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """(scores (Q, n) float32, rows (Q, n) int64) by inner product, in Milvus's order; rows end in -1 where fewer
        were found."""
        rows = np.full((len(queries), n), PADDING, np.int64)
        scores = np.full((len(queries), n), -np.inf, np.float32)
        per_call = max(1, min(1024, MESSAGE_BYTES // (4 * queries.shape[1]), MESSAGE_BYTES // (16 * n)))
        for start, stop in chunks(len(queries), per_call):
            hits_by_query = self.call(
                "search",
                self.place.collection,
                data=list(queries[start:stop]),
                anns_field="descriptor",
                limit=n,
                output_fields=["row"],
                search_params={"metric_type": "IP", "params": params},
                consistency_level=CONSISTENCY,
            )
            for query, hits in enumerate(hits_by_query, start=start):
                rows[query, : len(hits)] = [hit["row"] for hit in hits]
                scores[query, : len(hits)] = [hit["distance"] for hit in hits]
        return scores, rows


def load_pymilvus(*, local: bool) -> ModuleType:
    """The pymilvus module, its log and milvus-lite's turned into our debug lines. Raises UltronError with the way to
    install them."""
    try:
        import pymilvus
    except ImportError as error:
        raise UltronError(
            f'Milvus needs pymilvus, which cannot be imported ({error}); install it: pip install "ultron[milvus]"'
        ) from error
    if local and find_spec("milvus_lite") is None:
        raise UltronError(
            'a local Milvus database needs milvus-lite; install it: pip install "ultron[milvus]", or name a '
            "server with `uri`"
        )
    for name in ("pymilvus", "pymilvus.milvus_client", "milvus_lite", "grpc._server"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [DebugLines()]
        logger.propagate = False
    return pymilvus


class DebugLines(logging.Handler):
    """Says another library's log records as debug lines, and keeps its last exception: some of its errors leave out
    why."""

    last_exception: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            DebugLines.last_exception = record.exc_info[1]
        log.debug("%s: %s", record.name, record.getMessage().split("\n", 1)[0])


def grpc_code(error: BaseException | None) -> str:
    """The gRPC status, such as UNAVAILABLE, of an error or of what it came from; empty if there is none."""
    import grpc

    for _ in range(8):  # pymilvus raises some errors from themselves
        if isinstance(error, grpc.RpcError) and hasattr(error, "code"):
            return error.code().name
        if error is None:
            break
        error = error.__context__
    return ""


def is_passing(error: BaseException) -> bool:
    """Whether an error may be gone at the next try: the server was away, slow, or says so itself."""
    import grpc

    if grpc_code(error) in ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "INVALID_ARGUMENT"):
        return False
    if isinstance(error, grpc.FutureTimeoutError):
        return True
    if isinstance(error, grpc.RpcError):
        return grpc_code(error) in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    if getattr(error, "code", None) in (2, grpc.StatusCode.UNAVAILABLE):  # 2: pymilvus's own "cannot connect"
        return True
    return bool(getattr(error, "retriable", False))


def reason_of(error: BaseException) -> str:
    """What went wrong, in a few words."""
    details = getattr(error, "details", None)  # of a gRPC error: a function
    text = str(getattr(error, "message", "") or (details() if details else "") or error)
    if "Open local milvus failed" in text and DebugLines.last_exception is not None:
        text = f"does another process use it? {type(DebugLines.last_exception).__name__}: {DebugLines.last_exception}"
    return " ".join(text.split())[:200]
