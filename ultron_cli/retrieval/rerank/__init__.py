"""Chains of re-ranking steps: chosen by name, set from the command line, timed, and recorded.

Each step takes and gives a RerankState (state.py): a ranking, the queries that made it, and the database. `aqe` also
changes the queries for the steps after it.

Importing this package is light, so that help texts can name the steps: torch and SciPy come with the first step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from ultron_cli.configs import apply_set, from_dict, one_of, to_dict
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.origin import StepRecord
from ultron_cli.schema.values import shown

if TYPE_CHECKING:
    from ultron_cli.retrieval.rerank.state import RerankState


class StepConfig(Protocol):
    """The settings of a step: a frozen dataclass with a default for each."""

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reranker:
    """A kind of step: where its settings and its function are. They are imported when they are used."""

    module: str  # of this package
    config: str  # name of the frozen dataclass of its settings, a StepConfig
    function: str  # name of what takes a RerankState and the settings, and gives the next RerankState

    def config_type(self) -> type[StepConfig]:
        """The class of its settings."""
        return getattr(self._imported(), self.config)

    def apply(self, state: "RerankState", config: StepConfig) -> "RerankState":
        """The state after the step."""
        function: Callable[[RerankState, StepConfig], RerankState] = getattr(self._imported(), self.function)
        return function(state, config)

    def _imported(self) -> object:
        return import_module(f"{__name__}.{self.module}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a chain with its settings."""

    name: str
    config: StepConfig

    def record(self, ms_per_query: float) -> StepRecord:
        """As an Origin holds it."""
        return StepRecord(name=self.name, settings=to_dict(self.config), ms_per_query=ms_per_query)


EXAMPLE = "aqe.n=5"  # of --rerank-set


def parse_rerank(text: str | None, assignments: Sequence[str]) -> list[Step]:
    """The steps of --rerank `aqe,superglobal` with --rerank-set `superglobal.beta=0.2`. Raises UltronError for unknown
    ones."""
    names = [name.strip() for name in text.split(",")] if text else []
    for name in names:
        one_of("rerank", name, tuple(RERANKERS))
    values = apply_set({}, assignments, setting="rerank_set", example=EXAMPLE)
    for key, value in values.items():
        if not isinstance(value, dict):
            raise UltronError(
                f"`rerank_set` takes STEP.KEY=VALUE, for example {EXAMPLE}; found {shown(f'{key}={value}')}"
            )
        one_of("a step of `rerank_set`", key, tuple(RERANKERS))
        if key not in names:
            raise UltronError(
                f"`rerank_set` {key}.{next(iter(value))} is of a step that does not run; add {key} to `rerank`, found "
                f"{text or 'no re-ranking'}"
            )
    return [
        Step(name=name, config=from_dict(RERANKERS[name].config_type(), values.get(name, {}), prefix=f"{name}."))
        for name in names
    ]


def n_needed(steps: Sequence[Step]) -> int:
    """How long rankings must be for every step to see what it looks at; 0 without steps."""
    return max((step.config.n_needed for step in steps), default=0)


def rerank(state: "RerankState", steps: Sequence[Step]) -> tuple["RerankState", tuple[StepRecord, ...]]:
    """The state after all steps, and per step its settings and time, which is logged too."""
    records = []
    for step in steps:
        reranker = RERANKERS[step.name]
        reranker.config_type()  # imports it outside the time
        started_s = time.perf_counter()
        state = reranker.apply(state, step.config)
        ms_per_query = (time.perf_counter() - started_s) * 1e3 / max(1, len(state.queries))
        log.info("re-ranking, %s: %.1f ms per query", step.name, ms_per_query)
        records.append(step.record(ms_per_query))
    return state, tuple(records)


RERANKERS = {
    "superglobal": Reranker(module="superglobal", config="SuperGlobalConfig", function="superglobal"),
    "aqe": Reranker(module="expansion", config="AlphaQEConfig", function="alpha_qe"),
    "dba": Reranker(module="expansion", config="DBAConfig", function="dba"),
    "diffusion": Reranker(module="diffusion", config="DiffusionConfig", function="diffusion"),
    "kreciprocal": Reranker(module="kreciprocal", config="KReciprocalConfig", function="kreciprocal"),
}
