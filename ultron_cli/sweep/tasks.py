"""Which steps the cells of a sweep need: each once, after those that it reads from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from ultron_cli.retrieval.extraction.dataset import Role
from ultron_cli.sweep.settings import EVALUATED, NONE, CellSettings
from ultron_cli.sweep.steps import Place, adapted, evaluated, extracted, head_trained, indexed, whitened
from ultron_cli.workspace import short_hash

StepName = Literal["extract", "head", "adapt", "whiten", "index", "evaluate"]
# What is nearest to a result is done first.
ORDER: tuple[StepName, ...] = ("evaluate", "index", "whiten", "adapt", "head", "extract")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A step with its settings. Tasks of one key are one."""

    step: StepName
    settings: CellSettings
    role: Role = "database"  # of an extraction
    needs: Mapping[str, str]  # what it reads -> key of the task that makes it

    @property
    def key(self) -> str:
        """Equal for tasks that make the same."""
        return f"{self.step}-{short_hash({'step': self.step, 'role': self.role, **self._shaped_by(), **self.needs})}"

    def _shaped_by(self) -> dict[str, object]:
        """The settings of this step alone; those of steps before it are in the keys that it needs."""
        settings = self.settings
        if self.step == "extract":
            return {"model": asdict(settings.model), "extract": asdict(settings.extract)}
        if self.step == "head":
            return {"head": asdict(settings.head)}
        if self.step == "adapt":
            return {}
        if self.step == "whiten":
            return {"whiten": asdict(replace(settings.whiten, dim=None))}
        if self.step == "index":
            return {"kind": settings.index.kind, "dim": settings.whiten.dim}
        parts = {"whiten": settings.whiten, "index": settings.index, "search": settings.search}
        return {name: asdict(part) for name, part in (*parts.items(), ("evaluate", settings.evaluate))}

    def perform(self, results: Mapping[str, Path], place: Place) -> Path:
        """Does the step and returns its result. results: those of the tasks it needs, by key."""
        inputs = {name: results[key] for name, key in self.needs.items()}
        if self.step == "extract":
            return extracted(self.settings, self.role, place)
        if self.step == "head":
            return head_trained(self.settings, inputs["source"], place)
        if self.step == "adapt":
            return adapted(self.settings, inputs["descriptors"], inputs["head"], place)
        if self.step == "whiten":
            return whitened(self.settings, inputs["source"], place)
        if self.step == "index":
            return indexed(self.settings, inputs["database"], inputs.get("whitening"), place)
        return evaluated(
            self.settings,
            inputs["queries"],
            inputs["database"],
            inputs.get("whitening"),
            inputs.get("index"),
            place,
        )


def tasks_of(settings: CellSettings) -> list[Task]:
    """The steps of a cell with one training run, the evaluation last."""
    of_role: dict[Role, Task] = {role: _extraction(settings, role) for role in ("query", "database")}
    tasks = list(of_role.values())
    head = None
    if settings.head.name != NONE:
        source = _extraction_of(settings, settings.head.source)
        head = Task(step="head", settings=settings, needs={"source": source.key})
        of_role = {role: _adaptation(task, head) for role, task in of_role.items()}
        tasks += [source, head, *of_role.values()]
    needs = {"queries": of_role["query"].key, "database": of_role["database"].key}
    if settings.whiten.method != NONE:
        source = of_role["database"]
        if settings.whiten.source != EVALUATED:
            source = _extraction_of(settings, settings.whiten.source)
            tasks.append(source)
            if head is not None:
                source = _adaptation(source, head)
                tasks.append(source)
        tasks.append(Task(step="whiten", settings=settings, needs={"source": source.key}))
        needs["whitening"] = tasks[-1].key
    if settings.index.kind != NONE:
        read = {name: key for name, key in needs.items() if name != "queries"}
        tasks.append(Task(step="index", settings=settings, needs=read))
        needs["index"] = tasks[-1].key
    return [*tasks, Task(step="evaluate", settings=settings, needs=needs)]


def _extraction(settings: CellSettings, role: Role) -> Task:
    settings = replace(settings, extract=settings.extract.of_role(role))
    return Task(step="extract", settings=settings, role=role, needs={})


def _extraction_of(settings: CellSettings, dataset: str | None) -> Task:
    """The photos of another dataset, described as the database is."""
    other = replace(settings.extract, dataset=dataset, gnd=None, descriptors=None)
    return _extraction(replace(settings, extract=other), "database")


def _adaptation(described: Task, head: Task) -> Task:
    """Descriptors through a head."""
    needs = {"descriptors": described.key, "head": head.key}
    return Task(step="adapt", settings=head.settings, role=described.role, needs=needs)


def next_task(tasks: Sequence[Task], done_keys: frozenset[str] | set[str]) -> Task | None:
    """The task to begin now, of those that have not begun; None where all wait for others."""
    ready = [task for task in tasks if done_keys.issuperset(task.needs.values())]
    return min(ready, key=lambda task: ORDER.index(task.step), default=None)
