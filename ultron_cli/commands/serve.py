"""`ultron serve`: searching with photos in a browser."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.flags import (
    DatabaseWeightsFlag,
    DimFlag,
    EfSearchFlag,
    IndexFlag,
    NprobeFlag,
    RerankFlag,
    RerankSetFlag,
    RescoreFlag,
    WhitenFlag,
    choice,
    current_workspace,
    index_settings,
    number,
)
from ultron_cli.visualization.cam.method_table import METHODS

LIMITS = "Limits"


EXAMPLE = """
ultron serve
ultron serve --index photos.index --rerank superglobal --port 0
"""


def command(
    *,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 lets everybody on the network search and see the photos.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, number(help="Port to listen on; 0 takes a free one. The address is printed.", low=0, high=65535)
    ] = 8765,
    database: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Descriptors to search in (those of --index, else of the latest extraction)."
        ),
    ] = None,
    index: IndexFlag = None,
    k: Annotated[int, number("-k", help="Photos per search, unless a request says otherwise.", low=1)] = 20,
    nprobe: NprobeFlag = None,
    ef_search: EfSearchFlag = None,
    rescore: RescoreFlag = None,
    rerank: RerankFlag = None,
    rerank_set: RerankSetFlag = None,
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
    weights: DatabaseWeightsFlag = None,
    method: Annotated[str, choice(tuple(METHODS), by_path=True, help="Similarity map, or my.py:Map.")] = "gradcam",
    max_upload: Annotated[float, number(help="Largest upload.", low=0, metavar="MIB", panel=LIMITS)] = 32,
    max_megapixels: Annotated[
        float, number(help="Most pixels of an uploaded photo, in millions.", low=0, panel=LIMITS)
    ] = 50,
) -> None:
    """Opens a local web page to search with photos.

    Drop a photo there, draw a box round the landmark, and see the ranked photos. The page has a JSON API too. It
    listens on this machine alone unless --host says otherwise; Ctrl-C stops it.
    """
    from ultron_cli import console
    from ultron_cli.allocator import keep_memory
    from ultron_cli.console import counted, log, print_result

    keep_memory()
    from ultron_cli.retrieval.rerank import parse_rerank
    from ultron_cli.retrieval.searching import SearchOptions
    from ultron_cli.retrieval.whitening import chosen_whitening
    from ultron_cli.serve.limits import ServeConfig
    from ultron_cli.serve.photo_search import PhotoSearch
    from ultron_cli.serve.server import RetrievalServer, run

    workspace = current_workspace()
    steps = ",".join(step.name for step in parse_rerank(rerank, rerank_set or []))
    config = ServeConfig(
        k=k,
        rerank=steps,
        rerank_set=tuple(rerank_set or ()),
        method=method,
        max_upload_mib=max_upload,
        max_megapixels=max_megapixels,
    )
    options = SearchOptions(
        whitening=chosen_whitening(whiten, dim),
        index=index,
        index_settings=index_settings(nprobe, ef_search, rescore, index),
    )
    if database is None and index is None:
        database = workspace.take_latest("extract", "name --database or --index") / "database.h5"
    with (
        PhotoSearch(database, config, weights=weights, options=options, device=console.settings.device) as engine,
        RetrievalServer(engine, host, port) as server,
    ):
        if not server.is_local:
            log.warning(
                "listening on %s: whoever reaches this machine can search and see the photos; there is no password",
                host,
            )
        n_photos = len(engine.names)
        info = engine.info
        summary = {
            "url": server.url,
            "host": host,
            "port": server.server_port,
            "dataset": info.dataset,
            "model": info.model,
            "photos": n_photos,
        }
        print_result(
            summary,
            f"{server.url}  searches {counted(n_photos, 'photo')} of {info.dataset} with {info.model}; Ctrl-C stops",
        )
        run(server)
        if engine.queue.is_busy:
            # Ctrl-C ends it at once: what is still being computed is for nobody, and nothing is being written.
            sys.stderr.flush()
            os._exit(0)
