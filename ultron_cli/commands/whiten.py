"""`ultron whiten`: descriptors to a whitening."""

from pathlib import Path
from typing import Annotated

import typer

from ultron_cli.commands.choices import WHITENINGS
from ultron_cli.commands.flags import choice, current_workspace, number
from ultron_cli.errors import UltronError

EXAMPLE = """
ultron whiten train.h5 --method pca-whitening --dim 256 --out w.h5
ultron whiten train.h5 --method lw --labels labels.csv
"""


def command(
    descriptors: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Descriptors to learn from (the database of the latest extraction)."),
    ] = None,
    *,
    method: Annotated[
        str,
        choice(
            WHITENINGS,
            by_path=True,
            help="lw is supervised: matching pairs of --gnd, --labels or folders. Or my.py:Shrunk.",
        ),
    ] = "pca-whitening",
    gnd: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="lw: pairs are positives of the same query. Not that of the test set."),
    ] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE", help="lw: CSV of photo,landmark.")] = None,
    max_pairs: Annotated[int, number(help="lw: at most so many pairs, drawn evenly over landmarks.", low=1)] = 100_000,
    seed: Annotated[int, number(help="Seed of that draw.", low=0)] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of a method of your own.")
    ] = None,
    dim: Annotated[
        int | None, number(help="Dimensions to keep (all); --dim can cut further when it is applied.", low=1)
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File for the whitening (HDF5).")] = None,
) -> None:
    """Learns a whitening of descriptors.

    The flag --whiten applies it in extract, index, search and evaluate. Learn it from other photos than you evaluate
    on.
    """
    from ultron_cli.configs import apply_set
    from ultron_cli.console import counted, print_result
    from ultron_cli.retrieval.descriptors import DescriptorFile
    from ultron_cli.retrieval.whitening import write_whitening
    from ultron_cli.retrieval.whitening_learning import (
        learn_whitening,
        pairs_of_ground_truth,
        pairs_of_labels,
        whitening_method,
    )

    workspace = current_workspace()
    settings = apply_set({}, set_ or [], example="share=0.5")
    needs_pairs = whitening_method(method, settings).needs_pairs
    if not needs_pairs and (gnd or labels):
        raise UltronError(
            f"--gnd and --labels give pairs to --method lw, or one of yours that needs them; found {method}"
        )
    if gnd and labels:
        raise UltronError("pairs come from --gnd or --labels, not both; leave one")
    source = descriptors or workspace.take_latest("extract", "name a descriptor file") / "database.h5"
    pairs = None
    if needs_pairs:
        with DescriptorFile(source) as source_file:
            names = source_file.names
        pairs = (
            pairs_of_ground_truth(gnd, names, max_pairs, seed)
            if gnd
            else pairs_of_labels(labels, names, max_pairs, seed)
        )
    whitening = learn_whitening(
        source,
        method,
        pairs=pairs,
        dim=dim,
        labels=str(gnd or labels or "folders") if needs_pairs else None,
        settings=settings,
    )
    made_by = {**whitening.provenance, "seed": seed}
    path = (
        out
        or workspace.result_folder("whiten", source.resolve().parent.name, made_by) / f"{method.rpartition(':')[2]}.h5"
    )
    write_whitening(path, whitening)
    n = whitening.provenance["n"]
    assert isinstance(n, int)  # learn_whitening records it
    n_pairs = None if pairs is None else len(pairs)
    summary = {
        "whitening": str(path),
        "descriptors": str(source),
        "method": method,
        "n": n,
        "pairs": n_pairs,
        "from_dim": whitening.mean.size,
        "dim": whitening.dim,
    }
    with_pairs = f" and {counted(n_pairs, 'pair')}" if n_pairs else ""
    print_result(
        summary,
        f"{method} of {counted(n, 'descriptor')}{with_pairs}: {whitening.mean.size}-d to {whitening.dim}-d\n{path}",
    )
