"""`ultron fuse`: several results made one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultron_cli.commands.choices import FUSIONS, NORMS, PROTOCOLS
from ultron_cli.commands.flags import DimFlag, WhitenFlag, choice, number, require_unused
from ultron_cli.errors import UltronError

if TYPE_CHECKING:
    from ultron_cli.evaluation.fusion_tuning import Tuned
    from ultron_cli.retrieval.origin import FusionRecord

EXAMPLE = """
ultron fuse a.h5 b.h5 --method combsum --norm minmax --weights 1,0.5 --out fused.h5
ultron fuse a.h5 b.h5 --method combsum --tune medium --out fused.h5
ultron fuse ranks.h5 scores.h5 --method mix --lambda 0.55 --temperature 0.3 --out mixed.h5
ultron fuse extract/a extract/b --weights 1,0.5 --whiten w.h5 --dim 512 --out fused
"""
TUNING = "Tuning"
RERANKER = "A re-ranker's scores"
RRF_K = 60


def command(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="A.h5 B.h5",
            help="Rank files of the same queries; or descriptor files, or folders of queries.h5 and database.h5.",
        ),
    ],
    *,
    out: Annotated[Path, typer.Option(metavar="FILE|DIR", help="File, or folder, for the result.")],
    method: Annotated[
        str | None,
        choice(
            FUSIONS,
            by_path=True,
            help="How rankings are joined: rrf and isr by places, comb... by scores, mix with a re-ranker's (rrf). Or "
            "my.py:Best.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of a method of your own.")
    ] = None,
    norm: Annotated[str | None, choice(NORMS, help="How scores become comparable (minmax).")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="W1,W2", help="A weight for each result, with commas between (1 each).")
    ] = None,
    rrf_k: Annotated[int, number(help="The constant of rrf.", low=0)] = 60,
    k: Annotated[int | None, number("-k", help="Photos per query (all).", low=1)] = None,
    tune: Annotated[
        str | None,
        choice(
            PROTOCOLS,
            help="Tune weights, or lambda and temperature, by mAP of this protocol on other queries.",
            panel=TUNING,
        ),
    ] = None,
    gnd: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Ground truth (that of the extraction).", rich_help_panel=TUNING),
    ] = None,
    folds: Annotated[
        int, number(help="Parts of the queries; each gets what was tuned on the others.", low=1, panel=TUNING)
    ] = 5,
    seed: Annotated[int, number(help="Seed of the parts.", low=0, panel=TUNING)] = 0,
    optimistic: Annotated[
        bool,
        typer.Option(
            "--optimistic",
            help="Tune on the evaluated queries themselves; every score then says so.",
            rich_help_panel=TUNING,
        ),
    ] = False,
    search_share: Annotated[
        float | None,
        number("--lambda", help="Part of the search in the mix.", low=0, high=1, metavar="X", panel=RERANKER),
    ] = None,
    temperature: Annotated[
        float | None, number(help="What the re-ranker's scores are multiplied by.", low=0, metavar="X", panel=RERANKER)
    ] = None,
    whiten: WhitenFlag = None,
    dim: DimFlag = None,
) -> None:
    """Makes one result of several.

    Of rankings, places or scores are joined; of descriptors, vectors. What a photo costs in bytes and a query in
    milliseconds is told of each part. Weights can be tuned, on other queries than they are used for.
    """
    from ultron_cli.retrieval.descriptors import FORMAT as DESCRIPTORS
    from ultron_cli.retrieval.hdf5 import h5_format

    if len(results) < 2:
        raise UltronError("one result alone cannot be joined; name two or more")
    numbers = _weights(weights, len(results)) if weights is not None else None
    if tune:
        require_unused("--tune finds what is best", weights=weights, search_share=search_share, temperature=temperature)
    else:
        require_unused(
            "without --tune nothing is tuned",
            **{
                "gnd": gnd,
                "folds": None if folds == 5 else folds,
                "seed": seed or None,
                "optimistic": optimistic or None,
            },
        )
    if results[0].is_dir() or h5_format(results[0]) == DESCRIPTORS:
        from ultron_cli.retrieval.fusion.descriptors import fuse_descriptors
        from ultron_cli.retrieval.whitening import chosen_whitening

        require_unused(
            "descriptors are put side by side, with the same weights for every query",
            **{"method": method, "set_": set_, "norm": norm, "tune": tune, "k": k, "search_share": search_share},
            **{"temperature": temperature, "rrf_k": None if rrf_k == RRF_K else rrf_k},
        )
        info = fuse_descriptors(results, out, numbers, chosen_whitening(whiten, dim))
        fused = info.provenance.fusion
        _print(
            fused,
            out,
            f"next: ultron search --queries {out}/queries.h5 --database {out}/database.h5" if out.is_dir() else "",
        )
        return

    from ultron_cli.configs import apply_set, one_of
    from ultron_cli.evaluation.evaluate import find_gnd
    from ultron_cli.evaluation.fusion_tuning import TuningConfig
    from ultron_cli.evaluation.fusion_tuning import tune as tune_fusion
    from ultron_cli.provenance import provenance
    from ultron_cli.retrieval.fusion.parts import JoinedParts
    from ultron_cli.retrieval.fusion.rankings import FusionConfig, ScoreFusion, same_for_all, write_fusion
    from ultron_cli.retrieval.fusion.reranker import RerankerMix

    require_unused("rankings have no dimensions", whiten=whiten, dim=dim)
    mixed = (search_share, temperature)
    if method == "mix":
        require_unused("mix has lambda and temperature", weights=weights, norm=norm, set_=set_)
        if not tune and None in mixed:
            raise UltronError("mix needs --lambda and --temperature, or --tune, which finds them; add them")
    else:
        require_unused("they belong to --method mix", search_share=search_share, temperature=temperature)
    config = None
    if method != "mix":
        settings_of_method = apply_set({}, set_ or [], example="share=0.5")
        config = FusionConfig(
            method=method or "rrf", settings=settings_of_method, norm=norm, rrf_k=rrf_k, weights=numbers
        )
    tuning = None
    if tune:
        protocol = one_of("tune", tune, PROTOCOLS)
        tuning = TuningConfig(protocol=protocol, folds=folds, seed=seed, optimistic=optimistic)
    with JoinedParts(results) as joined:
        fusion = ScoreFusion(joined, config) if config else RerankerMix(joined)
        if tuning:
            tuned = tune_fusion(fusion, find_gnd(gnd, fusion.header.origin), tuning)
            settings = tuned.settings
        else:
            tuned = None
            fixed = fusion.weights if isinstance(fusion, ScoreFusion) else [part or 0.0 for part in mixed]
            settings = same_for_all(fixed, joined.n_queries)
        header = write_fusion(out, fusion, settings, k=k, tuning=tuned and tuned.record, searched_by=provenance())
    _print(header.origin.fusion, out, f"next: ultron evaluate --ranks {out}", tuned)


def _weights(text: str, n: int) -> tuple[float, ...]:
    """`1,0.5` as n numbers. Raises UltronError for anything else."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != n or not all(0 <= number < float("inf") for number in numbers) or not any(numbers):
        raise UltronError(
            f"--weights takes {n} numbers from 0 with commas between, one for each result and not all 0; found "
            f"{text[:60]!r}"
        )
    return numbers


def _print(fusion: "FusionRecord | None", out: Path, next_step: str, tuned: "Tuned | None" = None) -> None:
    """What was joined and what it costs."""
    from ultron_cli.console import counted, lines, print_result, table

    assert fusion is not None  # it was made a moment ago
    costs = fusion.costs()
    rows = [
        (
            part.label,
            *(
                "-" if value is None else f"{value:{form}}"
                for value, form in zip(numbers, ("g", ",.0f", ".1f"), strict=True)
            ),
        )
        for part, numbers in [(part, (part.weight, part.bytes_per_photo, part.ms_per_query)) for part in fusion.parts]
    ]
    total = (
        "fused",
        "",
        *("-" if value is None else f"{value:{form}}" for value, form in zip(costs, (",.0f", ".1f"), strict=True)),
    )
    folds = tuned.folds if tuned else []
    tuned_rows = [
        (i, len(fold.queries), ", ".join(f"{value:g}" for value in fold.settings), f"{100 * fold.mAP:.2f}")
        for i, fold in enumerate(folds, start=1)
    ]
    content = {
        "out": str(out),
        "fusion": fusion.to_json(),
        "ms_per_query": costs[1],
        "bytes_per_photo": costs[0],
        "folds": [{"queries": fold.queries, "settings": list(fold.settings), "mAP": fold.mAP} for fold in folds],
        "caution": fusion.caution,
    }
    print_result(
        content,
        lines(
            table(("part", "weight", "bytes per photo", "ms per query"), [*rows, total]),
            table(("fold", "queries", "settings", "mAP of the others"), tuned_rows) if tuned_rows else "",
            f"{counted(fusion.tuning.n_candidates, 'setting')} tried, {fusion.tuning}" if fusion.tuning else "",
            fusion.caution,
            str(out),
            next_step,
        ),
    )
