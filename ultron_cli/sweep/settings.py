"""What a cell of a sweep sets, step by step, and the requests of the steps that follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, Self

from ultron_cli.configs import flatten, from_dict, one_of, parse_scales, within
from ultron_cli.datasets.corruptions import BOX, CORRUPTIONS, MOST_SEVERE, named_corruption
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.models import require_model
from ultron_cli.models.backbones import require_backbone
from ultron_cli.models.heads import HEADS
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, Role
from ultron_cli.retrieval.rerank import Step, parse_rerank
from ultron_cli.retrieval.whitening_learning import METHODS, whitening_method
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.presets import HEAD_PRESET, load_config
from ultron_cli.user_code import is_import_path
from ultron_cli.workspace import Workspace

NONE = "none"  # of a whitening's method and of an index's kind: the step is left out
EVALUATED = "database"  # as the source of a whitening: the database that is searched


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which network; without any, that of the latest training run."""

    run: str | None = None
    runs: tuple[str, ...] = ()  # of several training seeds, which are one system
    weights: str | None = None
    pretrained: bool = False
    untrained: bool = False
    seed: int = 0  # of `untrained`
    seeds: tuple[int, ...] = ()  # several of them, which are one system
    name: str | None = None  # of the core: gem, ultron-s
    backbone: str | None = None
    settings: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name:
            require_model(self.name)
        if self.backbone:
            require_backbone(self.backbone)
        if self.weights:
            require_regular_file(Path(self.weights).expanduser(), "weights")
        if self.runs and self.run:
            raise UltronError("model.run names one training run, model.runs several seeds of a system; leave one")
        if self.seeds and not self.untrained:
            raise UltronError("model.seeds are of untrained networks; name trained ones with model.runs")
        for name, values in (("runs", self.runs), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                raise UltronError(f"model.{name} must be different; found {', '.join(map(str, values))}")

    @property
    def names_weights(self) -> bool:
        """Whether it says which weights; else they are those of the latest training run."""
        return bool(self.run or self.runs or self.weights or self.pretrained or self.untrained)

    def of_seeds(self) -> "list[ModelSettings]":
        """The same with one run, or one seed, each."""
        if self.runs:
            return [replace(self, run=run, runs=()) for run in self.runs]
        return [replace(self, seed=seed, seeds=()) for seed in self.seeds or (self.seed,)]

    def choice(self, workspace: Workspace) -> ModelChoice:
        """The model that they name."""
        return ModelChoice(
            run=self.run,
            weights=Path(self.weights) if self.weights else None,
            pretrained=self.pretrained,
            untrained=self.untrained,
            seed=self.seed,
            model=self.name,
            settings={**({"backbone": self.backbone} if self.backbone else {}), **self.settings},
            workspace=workspace,
        )


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """How photos become descriptors, as ExtractRequest; or which are there."""

    descriptors: str | None = None  # folder of queries.h5 and database.h5, which are taken as they are
    dataset: str | None = None
    gnd: str | None = None
    crop: Literal["bbx", "none"] = "bbx"
    scales: str | None = None  # 1, 3, 5 or numbers with commas between
    max_side_px: int | None = None
    resize: Literal["down", "always"] = "down"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None  # None: the model's
    corruption: str = NONE  # kind of corruption of the queries, or an import path
    severity: int = 0  # of it, from 0 (none) to MOST_SEVERE
    corruption_seed: int = 0
    runtime: Literal["torch", "compile", "onnxruntime", "openvino", "auto"] = "torch"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    storage: Literal["float32", "float16"] = "float32"
    batch_size: int = 8
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.descriptors is not None and not self._describes_nothing():
            raise UltronError(
                "extract.descriptors are there already and taken as they are; leave out all other settings under "
                "extract but gnd"
            )
        if self.scales is not None:
            parse_scales(self.scales)
        if self.max_side_px:
            within("extract.max_side_px", self.max_side_px, 32, 16384)
        within("extract.batch_size", self.batch_size, 1)
        if not is_import_path(self.corruption):
            one_of("extract.corruption", self.corruption, (NONE, *CORRUPTIONS))
        within("extract.severity", self.severity, 0, MOST_SEVERE)
        if self.severity and self.corruption == NONE:
            raise UltronError("extract.severity is of a corruption; name one with extract.corruption")
        if self.crop == "none" and self.corruption == BOX and self.severity:
            raise UltronError(f"the corruption {BOX} moves boxes, to which queries are cropped; crop them")

    def _describes_nothing(self) -> bool:
        """Whether beside descriptors that are there no more is said than which photos are right."""
        changed = {part.name for part in fields(self) if getattr(self, part.name) != part.default}
        return changed <= {"descriptors", "gnd"}

    def of_role(self, role: Role) -> "ExtractSettings":
        """Those that shape the descriptors of the queries, or of the database, whose photos are neither cropped nor
        corrupted."""
        if self.descriptors is not None or (role == "query" and self.severity):
            return self
        plain = self.plain()
        return replace(plain, crop="none") if role == "database" else plain

    def plain(self) -> Self:
        """The same without corruption."""
        return replace(self, corruption=NONE, severity=0, corruption_seed=0)

    def request(self, role: Role, n_workers: int | None) -> ExtractRequest:
        """Asks for the descriptors of one role."""
        corruption = None
        if self.severity:
            corruption = named_corruption(self.corruption, self.severity, self.corruption_seed)
        return ExtractRequest(
            dataset=self.dataset,
            gnd=Path(self.gnd) if self.gnd else None,
            crop=self.crop,
            scales=parse_scales(self.scales) if self.scales else None,
            max_side_px=self.max_side_px,
            resize=self.resize,
            interpolation=self.interpolation,
            corruption=corruption,
            runtime=self.runtime,
            precision=self.precision,
            storage=self.storage,
            batch_size=self.batch_size,
            n_workers=n_workers,
            skip_bad=self.skip_bad,
            alone=role,
        )


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Which head over the frozen network is trained, on what; the network describes every photo once, whatever heads
    there are."""

    name: str = NONE  # or as model.head of a training
    source: str | None = None  # landmarks to train on: a dataset by name or folder, described as the database is
    preset: str = HEAD_PRESET
    train: dict[str, object] = field(
        default_factory=dict
    )  # further settings of the training, as its TOML file has them

    def __post_init__(self) -> None:
        if self.name == NONE:
            return
        if not is_import_path(self.name):
            one_of("head.name", self.name, (NONE, *HEADS))
        if self.source is None:
            raise UltronError("head.source names the landmarks that heads are trained on; add it")
        self.config(Path("database.h5"))

    def config(self, descriptors: Path) -> TrainConfig:
        """The training on a descriptor file. Raises UltronError for an unknown setting."""
        values = flatten({**self.train, "model.head": self.name, "descriptors": str(descriptors)})
        config = load_config(self.preset, None, [f"{key}={_toml(value)}" for key, value in values.items()])
        if not isinstance(config, TrainConfig):
            raise UltronError(f"head.preset must be of a training, found {self.preset}; name another")
        return config


@dataclass(frozen=True, kw_only=True)
class WhitenSettings:
    """Which whitening is learned from what."""

    method: str = NONE  # or of `ultron whiten --method`
    settings: dict[str, object] = field(default_factory=dict)  # of a method by import path
    source: str = EVALUATED  # or a dataset by name or folder, described as the database is
    dim: int | None = None
    gnd: str | None = None  # of lw
    labels: str | None = None  # of lw
    max_pairs: int = 100_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_import_path(self.method):
            one_of("whiten.method", self.method, (NONE, *METHODS))
        if not self.needs_pairs and (self.gnd or self.labels):
            raise UltronError(
                f"whiten.gnd and whiten.labels give pairs to a method that needs them, as lw; found {self.method}"
            )
        if self.gnd and self.labels:
            raise UltronError("pairs come from whiten.gnd or whiten.labels, not both; leave one")
        if self.dim is not None:
            within("whiten.dim", self.dim, 1)

    @property
    def needs_pairs(self) -> bool:
        """Whether the method learns from matching pairs."""
        return self.method != NONE and whitening_method(self.method, self.settings).needs_pairs


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """Which index is searched; none is exact search."""

    kind: str = NONE  # or of `ultron index --type`
    settings: dict[str, object] = field(default_factory=dict)  # of a kind by import path
    nprobe: int | None = None
    ef_search: int | None = None
    rescore: int | None = None

    def __post_init__(self) -> None:
        if self.kind == NONE and self.of_search():
            raise UltronError(f"index.{next(iter(self.of_search()))} belongs to an index; name one with index.kind")

    def of_search(self) -> dict[str, int]:
        """The settings that are given in place of the index's own."""
        values = {"nprobe": self.nprobe, "ef_search": self.ef_search, "rescore": self.rescore}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How queries are searched and re-ranked."""

    k: int | None = None  # photos per query; None ranks all
    rerank: str = NONE  # steps with commas between
    rerank_set: dict[str, object] = field(default_factory=dict)  # step -> its settings
    distractors: tuple[str, ...] = ()  # descriptor files
    leave_out_queries: bool = False

    def __post_init__(self) -> None:
        if self.k is not None:
            within("search.k", self.k, 1)
        self.steps()

    def steps(self) -> list[Step]:
        """The steps of re-ranking."""
        assignments = []
        for step, values in self.rerank_set.items():
            if not isinstance(values, Mapping):
                raise UltronError(f"search.rerank_set.{step} must be a table of settings; found {values!r}")
            assignments += [f"{step}.{key}={_toml(value)}" for key, value in values.items()]
        return parse_rerank("" if self.rerank == NONE else self.rerank, assignments)


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """How rankings are scored."""

    duplicates: Literal["count", "first"] = "count"
    ties: Literal["row", "best", "worst"] = "row"  # how photos of equal score stand


@dataclass(frozen=True, kw_only=True)
class CellSettings:
    """All steps of a cell."""

    model: ModelSettings = field(default_factory=ModelSettings)
    extract: ExtractSettings = field(default_factory=ExtractSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    whiten: WhitenSettings = field(default_factory=WhitenSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    search: SearchSettings = field(default_factory=SearchSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)

    def __post_init__(self) -> None:
        if self.index.kind != NONE and self.search.distractors:
            raise UltronError("an index holds the photos it was made from; leave out search.distractors or index.kind")

    @classmethod
    def of(cls, values: Mapping[str, object]) -> "CellSettings":
        """Of the tables of a file. Raises UltronError for an unknown key or a wrong value."""
        extract = values.get("extract")
        if isinstance(extract, Mapping) and isinstance(extract.get("scales"), (int, float, list)):
            scales = extract["scales"]
            text = ",".join(map(str, scales)) if isinstance(scales, list) else str(scales)
            values = {**values, "extract": {**extract, "scales": text}}
        return from_dict(cls, values)

    def of_seeds(self) -> list[Self]:
        """The same with one training run each."""
        return [replace(self, model=model) for model in self.model.of_seeds()]
