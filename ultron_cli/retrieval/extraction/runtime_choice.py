"""Which runtime describes a dataset's photos: the one that was named, or the fastest. Either is held against torch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch

from ultron_cli.console import log
from ultron_cli.datasets.photos import LoadedPhoto, PhotoReader
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.machine import n_threads
from ultron_cli.models.runtimes import RUNTIMES, RuntimeName, open_network
from ultron_cli.models.runtimes.core import Network
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.retrieval.extraction.describe import ExtractConfig, describe_batch, photo_shape
from ultron_cli.retrieval.extraction.streams import described_by_photo

# Cosine of every descriptor with torch's float32 one, at least; by the runtime's precision. torch's own float32 varies
# by 1e-7 with the number of its threads.
LEAST_COSINES = {"float32": 0.99999, "bfloat16": 0.999, "float16": 0.999}
N_PROBED = 4  # the dataset's first photos, on which runtimes are compared


@dataclass(frozen=True)
class ChosenRuntime:
    """A runtime with a network ready."""

    name: RuntimeName
    network: Network | None = None  # None: torch's, which is made ready when it is used
    least_cosine: float | None = None  # of the probed photos' descriptors with torch's; None for torch itself


def choose_runtime(
    requested: RuntimeName | Literal["auto"],
    loaded: LoadedModel,
    config: ExtractConfig,
    device: torch.device,
    paths: Sequence[Path],
    stored: str | None,
) -> ChosenRuntime:
    """The runtime that is asked for, or of those that are installed and agree with torch the fastest.

    config: of the extraction; its runtime does not count. paths: of the first photos. stored: the runtime of an
    extraction that `auto` goes on with. Raises UltronError for a runtime that cannot take the model, WorkFailed for one
    that does not agree.
    """
    only = loaded.model.runtime
    if only is not None:
        if requested not in ("torch", "auto", only):
            raise UltronError(f"{loaded.model.label} is computed by {only} alone; leave out `runtime`")
        return open_runtime(only, loaded, config, device)
    installed: list[RuntimeName] = [name for name, entry in RUNTIMES.items() if entry.is_installed]
    if requested == "auto" and stored in installed:
        requested = cast(RuntimeName, stored)
    if requested == "torch":
        return ChosenRuntime("torch")
    if requested != "auto":
        candidate = open_runtime(requested, loaded, config, device)
        probe = _Probe.of(loaded, config, device, paths)
        return replace(candidate, least_cosine=_checked(probe, candidate, config))
    candidates = []
    for name in installed:
        if not RUNTIMES[name].is_for_auto:
            continue
        try:
            candidates.append(open_runtime(name, loaded, config, device))
        except UltronError as error:
            log.info("runtime %s is left out: %s", name, error.message)
    if not candidates:
        log.info("runtime torch: no other one is installed that takes this model here")
        return ChosenRuntime("torch")
    return _fastest(_Probe.of(loaded, config, device, paths), candidates, config)


def open_runtime(name: RuntimeName, loaded: LoadedModel, config: ExtractConfig, device: torch.device) -> ChosenRuntime:
    """A runtime made ready for many photos, not yet held against torch."""
    return ChosenRuntime(
        name, open_network(name, loaded, device, config.precision, RUNTIMES[name].threads(n_threads()))
    )


@dataclass(frozen=True)
class _Probe:
    """Photos on which runtimes are compared."""

    photos: list[LoadedPhoto]
    reference: np.ndarray  # (N, D), by torch in float32
    describe: Callable[[ChosenRuntime, str], np.ndarray]  # by a runtime in a precision

    @classmethod
    def of(cls, loaded: LoadedModel, config: ExtractConfig, device: torch.device, paths: Sequence[Path]) -> "_Probe":
        reader = PhotoReader(
            list(range(len(paths))), list(paths), [None] * len(paths), photo_shape(config, loaded.model)
        )
        readable = (photo for i in range(len(reader)) if (photo := reader[i]).pixels is not None)
        photos = list(islice(readable, N_PROBED))

        def describe(runtime: ChosenRuntime, precision: str) -> np.ndarray:
            of_runtime = replace(config, runtime=runtime.name, precision=precision, storage="float32")
            describe_ = partial(describe_batch, loaded.model, config=of_runtime, device=device, network=runtime.network)
            if not RUNTIMES[runtime.name].is_per_photo:
                return np.concatenate([describe_([photo]) for photo in photos])
            parts = described_by_photo(
                (lambda photo=photo: photo for photo in photos), describe_, RUNTIMES[runtime.name].threads(n_threads())
            )
            return np.concatenate([np.stack(part.results) for part in parts if part.results is not None])

        torch_network = open_network("torch", loaded, device, "float32", RUNTIMES["torch"].threads(n_threads()))
        reference = describe(ChosenRuntime("torch", torch_network), "float32") if photos else np.empty((0, 0))
        return cls(photos, reference, describe)

    def least_cosine(self, runtime: ChosenRuntime, precision: str) -> float:
        """The least cosine of a runtime's descriptors with torch's."""
        products = (self.reference.astype(np.float64) * self.describe(runtime, precision)).sum(axis=1)
        return float(products.min())

    def seconds(self, runtime: ChosenRuntime, precision: str) -> float:
        """How long a runtime takes for the photos, when it has seen their sizes before."""
        started_s = time.perf_counter()
        self.describe(runtime, precision)
        return time.perf_counter() - started_s


def _checked(probe: _Probe, candidate: ChosenRuntime, config: ExtractConfig) -> float | None:
    """The least cosine with torch's descriptors; None where no photo can be read. Raises WorkFailed if it is too
    small."""
    if not probe.photos:
        return None
    cosine = probe.least_cosine(candidate, config.precision)
    least = LEAST_COSINES[config.precision]
    if not cosine >= least:  # also what is not finite
        raise WorkFailed(
            f"runtime {candidate.name} does not agree with torch: the least cosine of the first {len(probe.photos)} "
            f"photos' descriptors is {cosine:.7f}, at least {least} is wanted",
            "use `runtime=torch`",
        )
    return cosine


def _fastest(probe: _Probe, candidates: Sequence[ChosenRuntime], config: ExtractConfig) -> ChosenRuntime:
    """Of torch and the candidates that agree with it, the fastest on the probed photos."""
    if not probe.photos:
        return ChosenRuntime("torch")
    best, best_s = ChosenRuntime("torch"), probe.seconds(ChosenRuntime("torch"), config.precision)
    rates = [f"torch {len(probe.photos) / best_s:.2f}"]
    for candidate in candidates:
        try:
            checked = replace(candidate, least_cosine=_checked(probe, candidate, config))
        except WorkFailed as error:
            log.warning("%s", error.message)
            continue
        seconds = probe.seconds(checked, config.precision)
        rates.append(f"{checked.name} {len(probe.photos) / seconds:.2f}")
        if seconds < best_s:
            best, best_s = checked, seconds
    cosine = "" if best.least_cosine is None else f", least cosine with torch's descriptors {best.least_cosine:.7f}"
    log.info("runtime %s (photos/s: %s)%s", best.name, ", ".join(rates), cosine)
    return best
