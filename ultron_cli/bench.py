"""Measures for `ultron bench` what this machine gives: decoding, the network, the compiled operators, exact search.

Every result is checked before it is timed; the check is the warm-up. Rounds of sides that are compared run in turns;
calls shorter than SHORTEST_S are repeated within a round. A CUDA device is waited for at both ends of a round.
"""

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import ultron_kernels
from ultron_kernels import ops

from ultron_cli.configs import within
from ultron_cli.console import log
from ultron_cli.datasets.photo_files import photo_size
from ultron_cli.datasets.photos import LoadedPhoto, PhotoReader, PhotoShape, read_photos
from ultron_cli.datasets.toy import ToyConfig, make_toy
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.machine import cpu_name, memory_mib
from ultron_cli.measurements import Measurement, Results
from ultron_cli.memory import available_bytes
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch
from ultron_cli.retrieval.extraction.shards import default_workers
from ultron_cli.training.environment import environment

# Of the search: ULTRON's dimensions, Oxford's queries, a ranking as long as people look.
DIM = 512
N_QUERIES = 70
K = 100
SHORTEST_S = 0.1
MOST_CALLS = 1000
# How far a compiled operator may be from the reference in float32, relative to its largest value: sums are taken in
# another order.
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """How much to measure."""

    rounds: int = 5
    side_px: int = 512  # of the network's photos
    batch_size: int = 4  # of the network
    n: int = 100_000  # descriptors to search
    n_photos: int = 8  # rendered, to be decoded
    photo_side_px: int = 1024  # of the rendered photos; Oxford's and Paris's have 1024
    operator_side_px: int = 512  # of the photos that give the operators their maps
    shortest_s: float = SHORTEST_S  # calls shorter than this are repeated within a round

    def __post_init__(self) -> None:
        within("rounds", self.rounds, 1, 1000)
        within("side_px", self.side_px, 32, 4096)
        within("batch_size", self.batch_size, 1, 64)
        within("n", self.n, 1, 2**32 - 1)
        free = available_bytes()
        if free is not None and self.n * DIM * 4 > free:
            raise UltronError(
                f"`n` {self.n:,} needs {self.n * DIM * 4 / 2**20:,.0f} MiB for descriptors and "
                f"{free / 2**20:,.0f} MiB are free; ask for fewer"
            )


# Sizes that show that it runs; the numbers mean little.
QUICK = BenchConfig(
    rounds=1,
    side_px=64,
    batch_size=2,
    n=2000,
    n_photos=2,
    photo_side_px=128,
    operator_side_px=128,
    shortest_s=0.0,
)


def bench(config: BenchConfig, choice: ModelChoice, device: torch.device) -> Results:
    """Measures everything. Raises UltronError before anything is measured if the model or a size is unsound."""
    loaded = choice.load()
    if config.side_px < loaded.model.min_side_px:
        raise UltronError(
            f"{loaded.model.label} takes photos from {loaded.model.min_side_px} px a side; found `side` "
            f"{config.side_px}, ask for more"
        )
    log.info("measuring exact search among %s descriptors", f"{config.n:,}")
    search = measure_search(config, device)  # first, so that the peak of memory is its own
    log.info("measuring decoding (rendering %d photos of %d px first)", config.n_photos, config.photo_side_px)
    decoding = measure_decoding(config, loaded, device)
    log.info("measuring %s on %s", loaded.model.label, device)
    network = measure_network(config, loaded, device)
    log.info("measuring the operators")
    rows = {"decoding": decoding, "network": network, **measure_operators(config, device), "exact search": search}
    return Results(results=rows, machine=machine_facts(device))


def machine_facts(device: torch.device) -> dict[str, object]:
    """What stands beside measurements: processor or GPU, cores, versions, commit, how busy the machine is."""
    load = {"load_average": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
    return {"cpu": cpu_name()} | environment(device) | load


def seconds_per_call(
    sides: dict[str, Callable[[], object]], config: BenchConfig, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of one call in each round of each side, the sides in turns."""
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)

    def seconds(side: Callable[[], object], n_calls: int) -> float:
        wait()
        started_s = time.perf_counter()
        for _ in range(n_calls):
            side()
        wait()
        return (time.perf_counter() - started_s) / n_calls

    n_calls = {
        name: max(1, min(MOST_CALLS, round(config.shortest_s / seconds(side, 1)))) for name, side in sides.items()
    }
    seconds_of: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(config.rounds):
        for name, side in sides.items():
            seconds_of[name].append(seconds(side, n_calls[name]))
    return seconds_of


def rates_of(n: int, work: Callable[[], object], config: BenchConfig, device: torch.device) -> list[float]:
    """Things per second in each round of work that does n of them."""
    return [n / seconds for seconds in seconds_per_call({"": work}, config, device)[""]]


def measure_decoding(config: BenchConfig, loaded: LoadedModel, device: torch.device) -> Measurement:
    """Photos/s from JPEG files to pixels at the network's side, in one process, by extraction's reader."""
    shape = PhotoShape(
        max_side_px=config.side_px,
        interpolation=loaded.model.preprocessing.interpolation,
        min_side_px=loaded.model.min_side_px,
    )
    with tempfile.TemporaryDirectory() as temporary:
        toy = ToyConfig(
            n_train_landmarks=0,
            n_eval_landmarks=1,
            n_database_photos=config.n_photos - 1,
            n_distractors=0,
            max_side_px=config.photo_side_px,
        )
        make_toy(Path(temporary) / "toy", toy, workers=0)
        paths = sorted((Path(temporary) / "toy" / "jpg").iterdir())
        reader = PhotoReader(list(range(len(paths))), paths, [None] * len(paths), shape)
        for photo, path in zip(read_photos(reader, 0), paths, strict=True):
            if photo.pixels is None:
                raise WorkFailed(photo.problem)
            width, height = shape.target(*photo_size(path))
            if tuple(photo.pixels.shape) != (height, width, 3):
                raise WorkFailed(
                    f"{path} was read as {tuple(photo.pixels.shape)} and should be {(height, width, 3)}: "
                    "nothing is timed; see `ultron doctor`"
                )
        rates = rates_of(len(paths), lambda: list(read_photos(reader, 0)), config, device)
    sides = f"{config.photo_side_px} px, read at {min(config.photo_side_px, config.side_px)} px"
    of = f"{len(paths)} rendered JPEGs of {sides}, one process"
    note = f"extract takes {max(1, default_workers(device))} here"
    return Measurement.of_rounds(rates, unit="photos/s", of=of, note=note)


def measure_network(config: BenchConfig, loaded: LoadedModel, device: torch.device) -> Measurement:
    """Photos/s from pixels in memory to descriptors in memory, as extraction does a batch, at one scale."""
    model = loaded.model.to(device).to(memory_format=torch.channels_last)
    extract_config = ExtractConfig(
        dataset="bench",
        photos_sha256="",
        role="database",
        crop="none",
        scales=(1.0,),
        max_side_px=config.side_px,
        resize="down",
        weights_sha256=loaded.weights_sha256,
    )
    pixels = torch.randint(
        256,
        (config.batch_size, config.side_px, config.side_px, 3),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    photos = [LoadedPhoto(row, photo) for row, photo in enumerate(pixels)]
    try:
        norms = np.linalg.norm(describe_batch(model, photos, extract_config, device), axis=1)
        if not np.allclose(norms, 1.0, atol=1e-3):  # also where they are not finite
            raise WorkFailed(
                f"{model.label} gave descriptors of norm {norms.min()} to {norms.max()} instead of 1: nothing is timed"
                "; see `ultron doctor`"
            )
        rates = rates_of(len(photos), lambda: describe_batch(model, photos, extract_config, device), config, device)
    except torch.OutOfMemoryError:
        raise WorkFailed(
            f"{model.label} with `batch_size` {config.batch_size} and `side_px` {config.side_px} does not fit on "
            f"{device}; ask for less"
        ) from None
    of = f"{model.label}, {len(photos)} x {config.side_px} px, 1 scale, {extract_config.precision} on {device}"
    return Measurement.of_rounds(rates, unit="photos/s", of=of)


def measure_operators(config: BenchConfig, device: torch.device) -> dict[str, Measurement]:
    """Milliseconds of each operator's forward pass, compiled and reference, on float32 maps of ultron-s (stages 3 and
    2)."""
    random = torch.Generator().manual_seed(0)
    side = config.operator_side_px
    query, key, value = (torch.randn(1, side // 16, side // 16, 10, 32, generator=random).to(device) for _ in range(3))
    bias = torch.randn(10, 13, 13, generator=random).to(device)
    features = torch.randn(1, 768, side // 8, side // 8, generator=random).to(device)
    weight = torch.randn(768, 1, 3, 3, generator=random).to(device)
    dilation = torch.tensor([1, 3, 6])[torch.randint(3, (1, 768), generator=random)].to(device)
    calls: dict[str, tuple[tuple[int, ...], Callable[[ops.Backend], torch.Tensor]]] = {
        "scala_attention": (
            tuple(query.shape),
            lambda backend: ultron_kernels.scala_attention(query, key, value, bias, backend=backend),
        ),
        "cdconv": (
            tuple(features.shape),
            lambda backend: ultron_kernels.cdconv(features, weight, dilation, backend=backend),
        ),
    }
    is_compiled = ops.implementation(device.type, "auto") != "torch"  # builds it, as the network at its first use
    problem = "" if is_compiled else ultron_kernels.status()[device.type]
    rows = {}
    for name, (shape, call) in calls.items():
        sides = {"reference": lambda call=call: call("torch")} | (
            {"compiled": lambda call=call: call(cast(ops.Backend, device.type))} if is_compiled else {}
        )
        with torch.inference_mode():
            reference, *compiled = [side() for side in sides.values()]
            for output in compiled:
                distance = float((output - reference).abs().max() / reference.abs().max())
                if not distance <= TOLERANCE:
                    raise WorkFailed(
                        f"the compiled {name} is {distance:.2g} from the reference, more than {TOLERANCE}: nothing "
                        "is timed; see `ultron doctor`"
                    )
            seconds = seconds_per_call(sides, config, device)
        of = f"{shape} float32, forward, on {device}"
        for side, missing in (("compiled", problem), ("reference", "")):
            ms = [1e3 * s for s in seconds.get(side, [])]
            rows[f"{name}, {side}"] = Measurement.of_rounds(ms, unit="ms", of=of, problem=missing)
    return rows


def measure_search(config: BenchConfig, device: torch.device) -> Measurement:
    """Queries/s of exact search among generated unit descriptors; queries are rows of the database and must find
    themselves first."""
    database = np.random.default_rng(0).standard_normal((config.n, DIM), dtype=np.float32)
    database /= np.sqrt(np.einsum("nd,nd->n", database, database))[:, None]  # norms without a second array of this size
    rows = np.linspace(0, config.n - 1, N_QUERIES).astype(np.int64)
    queries = database[rows]
    k = min(K, config.n)
    first_rows = exact_search(queries, database, k, device=str(device)).rows[:, 0]
    if not np.array_equal(first_rows, rows):
        raise WorkFailed(
            f"{int((first_rows != rows).sum())} of {N_QUERIES} descriptors did not find themselves first: "
            "nothing is timed; see `ultron doctor`"
        )
    rates = rates_of(N_QUERIES, lambda: exact_search(queries, database, k, device=str(device)), config, device)
    peaks = f"process peak {memory_mib(torch.device('cpu')):,.0f} MiB" + (
        f", GPU peak {memory_mib(device):,.0f} MiB" if device.type == "cuda" else ""
    )
    size = f"{config.n:,} x {DIM} float32 ({database.nbytes / 2**20:,.1f} MiB)"
    of = f"{size}, {N_QUERIES} queries, k {k}, on {device}"
    return Measurement.of_rounds(rates, unit="queries/s", of=of, note=peaks)
