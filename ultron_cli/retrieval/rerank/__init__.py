"""Chains of re-ranking steps: chosen by name, set from the command line, timed, and recorded.

Each step takes and gives a RerankState (state.py): a ranking, the queries that made it, and the database. `aqe` also
changes the queries for the steps after it.

Importing this package is light, so that help texts can name the steps: torch and SciPy come with the first step.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from ultron_cli import user_code
from ultron_cli.configs import apply_set, from_dict, one_of, to_dict
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.origin import Json, StepRecord
from ultron_cli.schema.values import shown

if TYPE_CHECKING:
    from ultron_cli.retrieval.rerank.state import RerankState


class StepConfig(Protocol):
    """The settings of a step: a frozen dataclass with a default for each."""

    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reranker:
    """A kind of step: where its settings and its function are. They are imported when they are used."""

    module: str  # of this package
    config: str  # name of the frozen dataclass of its settings, a StepConfig
    needs_local_features: bool = False  # of queries and database
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
    part: user_code.UserPart | None = None  # of a step by import path

    def apply(self, state: "RerankState") -> "RerankState":
        """The state after the step. Raises UltronError, naming the place, if a user's step gives no state of as many
        queries."""
        if self.part is None:
            return RERANKERS[self.name].apply(state, self.config)
        with user_code.blaming(self.config, "__call__"):
            after = cast(UserStep, self.config)(state)
        rows = getattr(getattr(after, "ranking", None), "rows", None)
        if rows is None or rows.ndim != 2 or len(rows) != len(state.queries):
            raise UltronError(
                f"{self.part.place('__call__')}: {self.part.name} must give a RerankState with a ranking of "
                f"{len(state.queries)} queries; found {type(after).__name__ if rows is None else rows.shape}"
            )
        return after

    def record(self, ms_per_query: float, measured: Json = MappingProxyType({})) -> StepRecord:
        """As an Origin holds it. measured: what the step says of its work."""
        no_result = {part.name for part in fields(self.config) if not part.metadata.get("shapes_result", True)}
        settings = {name: value for name, value in to_dict(self.config).items() if name not in no_result}
        if self.part is not None:
            settings["code_sha256"] = self.part.sha256
        return StepRecord(name=self.name, settings=settings, ms_per_query=ms_per_query, measured=measured)


class UserStep(StepConfig, Protocol):
    """A step that a user names by import path: a frozen dataclass of its settings, which is called with a state and
    gives the next one."""

    def __call__(self, state: "RerankState") -> "RerankState":
        """The state after the step."""
        ...


EXAMPLE = "aqe.n=5"  # of --rerank-set


def _user_part(name: str) -> user_code.UserPart:
    """The class of a step by import path. Raises UltronError, naming the place, if it has not all that one needs."""
    user_code.permit(name)
    part = user_code.load(name, "re-ranking step", RERANKERS)
    if not is_dataclass(part.target):
        raise UltronError(f"{part.place()}: {part.name} must be a frozen dataclass of the step's settings; make it one")
    for method in ("__call__", "n_needed"):
        part.require_method(method, UserStep)
    return part


def _user_parts(names: Sequence[str]) -> dict[str, user_code.UserPart]:
    """The steps by import path among `names`, by their own names, under which they are set. Raises UltronError if two
    have one name."""
    parts: dict[str, user_code.UserPart] = {}
    for name in filter(user_code.is_import_path, dict.fromkeys(names)):
        part = _user_part(name)
        if part.name in parts:
            raise UltronError(
                f"{part.place()}: {part.name} is the name of another step too, {parts[part.name].place()}; give the "
                "class another name"
            )
        parts[part.name] = part
    return parts


def parse_rerank(text: str | None, assignments: Sequence[str]) -> list[Step]:
    """The steps of --rerank `aqe,superglobal` with --rerank-set `superglobal.beta=0.2`; `my.py:Step`, which is run, is
    set as `Step.beta=0.2`. Raises UltronError for unknown ones."""
    names = [name.strip() for name in text.split(",")] if text else []
    for name in names:
        if not user_code.is_import_path(name):
            one_of("rerank", name, tuple(RERANKERS))
    parts = _user_parts(names)
    short_names = [name.rpartition(":")[2] for name in names]
    values = apply_set({}, assignments, setting="rerank_set", example=EXAMPLE)
    user_code.permit_in(values)
    for key, value in values.items():
        if not isinstance(value, dict):
            raise UltronError(
                f"`rerank_set` takes STEP.KEY=VALUE, for example {EXAMPLE}; found {shown(f'{key}={value}')}"
            )
        one_of("a step of `rerank_set`", key, (*RERANKERS, *parts))
        if key not in short_names:
            raise UltronError(
                f"`rerank_set` {key}.{next(iter(value))} is of a step that does not run; add {key} to `rerank`, found "
                f"{text or 'no re-ranking'}"
            )
    steps = []
    for name, short_name in zip(names, short_names, strict=True):
        settings, prefix = values.get(short_name, {}), f"{short_name}."
        if part := parts.get(short_name):
            steps.append(Step(name=name, config=part.made(settings=settings, prefix=prefix), part=part))
        else:
            steps.append(Step(name=name, config=from_dict(RERANKERS[name].config_type(), settings, prefix=prefix)))
    return steps


def needs_local_features(steps: Sequence[Step]) -> bool:
    """Whether a step looks at local features."""
    return any(step.part is None and RERANKERS[step.name].needs_local_features for step in steps)


def n_needed(steps: Sequence[Step]) -> int:
    """How long rankings must be for every step to see what it looks at; 0 without steps."""
    return max((step.config.n_needed for step in steps), default=0)


def rerank(state: "RerankState", steps: Sequence[Step]) -> tuple["RerankState", tuple[StepRecord, ...]]:
    """The state after all steps, and per step its settings and time, which is logged too."""
    records = []
    for step in steps:
        if step.part is None:
            RERANKERS[step.name].config_type()  # imports it outside the time
        started_s = time.perf_counter()
        state = step.apply(replace(state, measured={}))
        ms_per_query = (time.perf_counter() - started_s) * 1e3 / max(1, len(state.queries))
        log.info("re-ranking, %s: %.1f ms per query", step.name, ms_per_query)
        records.append(step.record(ms_per_query, state.measured))
    return state, tuple(records)


RERANKERS = {
    "superglobal": Reranker(module="superglobal", config="SuperGlobalConfig", function="superglobal"),
    "aqe": Reranker(module="expansion", config="AlphaQEConfig", function="alpha_qe"),
    "dba": Reranker(module="expansion", config="DBAConfig", function="dba"),
    "diffusion": Reranker(module="diffusion", config="DiffusionConfig", function="diffusion"),
    "kreciprocal": Reranker(module="kreciprocal", config="KReciprocalConfig", function="kreciprocal"),
    "geometry": Reranker(module="geometry", config="GeometryConfig", function="geometry", needs_local_features=True),
    "asmk": Reranker(module="asmk", config="AsmkConfig", function="asmk", needs_local_features=True),
}
