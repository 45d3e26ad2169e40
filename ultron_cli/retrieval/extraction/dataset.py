"""Extracts the queries and the database of a dataset into one folder of the workspace."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import torch

from ultron_cli.configs import one_of, to_dict
from ultron_cli.console import counted, log
from ultron_cli.datasets.corruptions import BOX, Corruption
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.named import open_named_dataset
from ultron_cli.datasets.photos import INTERPOLATIONS
from ultron_cli.distributed import process_device
from ultron_cli.errors import UltronError
from ultron_cli.locks import only_writer
from ultron_cli.machine import resolve_device
from ultron_cli.models.runtimes import RuntimeName
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.models.weights.model_choice import ModelChoice, ModelInMemory
from ultron_cli.output_files import require_space
from ultron_cli.retrieval.descriptors import write_descriptors
from ultron_cli.retrieval.extraction.describe import ExtractConfig
from ultron_cli.retrieval.extraction.described import DescriptorExtraction
from ultron_cli.retrieval.extraction.files import (
    extract_file,
    help_extract,
    parts_of,
    require_same_work,
    stored_runtime,
)
from ultron_cli.retrieval.extraction.processes import ExtractionProcesses, extraction_processes
from ultron_cli.retrieval.extraction.runtime_choice import ChosenRuntime, choose_runtime, open_runtime
from ultron_cli.retrieval.extraction.shards import ExtractWork
from ultron_cli.retrieval.local_features.extraction import LocalExtraction
from ultron_cli.retrieval.local_features.request import LocalFile, LocalRequest, extract_local, local_extractions
from ultron_cli.retrieval.whitening import WhitenedFile, Whitening
from ultron_cli.workspace import Workspace, short_hash

Role = Literal["query", "database"]
ALL_IS_CHOSEN = "dataset and model are sound, the runtime is chosen"  # told with the runtime's name


@dataclass(frozen=True, kw_only=True)
class ExtractRequest:
    """What `ultron extract` shall do."""

    dataset: str | Dataset | None  # name, folder, or opened already; None: the default dataset
    gnd: Path | None = None
    crop: Literal["bbx", "none"] = "bbx"
    scales: tuple[float, ...] | None = None  # None: those the model is made for
    max_side_px: int | None = None  # 0: no limit; None: as the model was trained
    resize: Literal["down", "always"] = "down"
    interpolation: str | None = None  # the filter, of photos.INTERPOLATIONS; None: the model's
    corruption: Corruption | None = None  # of the queries
    # What computes the network; auto: the fastest that is installed and agrees with torch.
    runtime: RuntimeName | Literal["auto"] = "torch"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    storage: Literal["float32", "float16"] = "float32"
    batch_size: int = 8
    n_workers: int | None = None  # processes that decode; None: as the runtime likes it (shards.default_workers)
    skip_bad: bool = False
    overwrite: bool = False
    whitening: Whitening | None = None
    local: LocalRequest | None = None
    out: Path | None = None  # folder; None: one in the workspace, which must be there then
    # Only the file of this role, in a folder of the workspace that is named after all that makes it, and which does not
    # become the latest; another process that writes it is waited for.
    alone: Role | None = None

    def __post_init__(self) -> None:
        if self.corruption and self.corruption.kind == BOX and self.crop == "none":
            raise UltronError(f"the corruption {BOX} moves boxes, to which queries are not cropped; crop them")


class ExtractedFile(TypedDict):
    """What is said of one written file."""

    path: str
    n: int  # photos
    computed: int  # of them, now


class SkippedInRole(TypedDict):
    """A photo left out by --skip-bad."""

    name: str
    reason: str
    role: str


class ExtractSummary(TypedDict):
    """What `ultron extract --json` says."""

    model: str
    dataset: str
    folder: str
    dim: int
    weights_sha256: str
    config: dict[str, object]
    protocol: str  # how photos were turned into descriptors, in one phrase
    skipped: list[SkippedInRole]
    files: dict[str, ExtractedFile]  # by role
    local: dict[str, LocalFile]  # of local features, by role; empty where none were wanted


def longest_side_px(requested_px: int | None, loaded: LoadedModel) -> int | None:
    """The longest side: that of the only photos that the network takes, else the requested one (0: no limit), else that
    of the photos that a head was trained on or a network was exported for, else twice the side of the training crops
    (512 and 1024 in papers), else 1024. Raises UltronError for another one than the only one."""
    sides_px = loaded.model.sides_px
    if sides_px is not None:
        if requested_px not in (None, max(sides_px)):
            raise UltronError(
                f"{loaded.model.label} takes photos of {sides_px[0]} x {sides_px[1]} px; leave out `max_side_px`"
            )
        return max(sides_px)
    if requested_px is not None:
        return requested_px or None
    if loaded.made_for_side_px is not None:
        return loaded.made_for_side_px or None
    return 2 * loaded.train_side_px if loaded.train_side_px else 1024


def extraction_config(
    request: ExtractRequest, dataset: Dataset, role: Role, names: list[str], loaded: LoadedModel
) -> ExtractConfig:
    """The configuration of one descriptor file of a dataset."""
    crop = request.crop if role == "query" else "none"
    scales_inside = loaded.model.scales_inside
    if scales_inside is not None and request.scales not in (None, scales_inside):
        raise UltronError(
            f"{loaded.model.label} computes the scales {', '.join(f'{scale:g}' for scale in scales_inside)} by itself, "
            "as it was exported; leave out `scales`"
        )
    preprocessing = loaded.model.preprocessing.to_dict()
    if request.interpolation is not None:
        preprocessing["interpolation"] = one_of("interpolation", request.interpolation, INTERPOLATIONS)
    config = ExtractConfig(
        dataset=dataset.name,
        photos_sha256=dataset.fingerprint(names, boxes=crop == "bbx"),
        role=role,
        crop=crop,
        corruption=request.corruption if role == "query" else None,
        scales=request.scales or loaded.model.recommended_scales,
        max_side_px=longest_side_px(request.max_side_px, loaded),
        resize=request.resize,
        precision=request.precision,
        storage=request.storage,
        model=loaded.model.made_of(),
        preprocessing=preprocessing,
        weights_sha256=loaded.weights_sha256,
    )
    return config.cropped_for(loaded.model)


def extract_dataset(
    request: ExtractRequest, choice: ModelChoice | ModelInMemory, device_name: str, workspace: Workspace | None = None
) -> ExtractSummary:
    """Writes queries.h5 (where the dataset has queries) and database.h5. workspace: remembers them as the latest.

    Raises UltronError before anything is written if the dataset, the model or a box is unsound. Started by torchrun,
    all processes call it and get the summary; the first one checks, decides, merges and whitens, and it opens dataset
    and model before the others, which then find them rendered and downloaded.
    """
    device = process_device(resolve_device(device_name))
    with extraction_processes() as processes:
        if not processes.is_first:
            runtime_name: RuntimeName = processes.hear(ALL_IS_CHOSEN)
            prepared = _prepared(request, choice, device, workspace)
            prepared.use(open_runtime(runtime_name, prepared.loaded, prepared.first.config, device))
            for path, extraction in prepared.files.values():
                help_extract(extraction, path, processes)
            for path, extraction in prepared.local.values():
                help_extract(extraction, path, processes)
            return processes.hear("summary")
        prepared = _prepared(request, choice, device, workspace)
        if prepared.dataset.ground_truth is None and prepared.dataset.unread_files:
            log.warning("%s", prepared.dataset.unread_files)
        for _, extraction in prepared.files.values():
            extraction.check_photos()
        runtime = _chosen_runtime(prepared, request, device)
        prepared.use(runtime)
        with contextlib.ExitStack() as locks:
            for folder in sorted({prepared.folder, *(path.parent for path, _ in prepared.files.values())}):
                is_writing = f"another `ultron extract` is writing {folder}"
                locks.enter_context(only_writer(folder, is_writing, wait=request.alone is not None))
            for path, extraction in prepared.files.values():  # of all files, before one is replaced
                require_same_work(extraction, path)
            for path, extraction in prepared.local.values():
                require_same_work(extraction, path)
            _require_space(prepared, request.whitening)
            processes.tell(ALL_IS_CHOSEN, runtime.name)
            summary = _extract(prepared, request, processes, workspace)
        processes.tell("summary", summary)
        return summary


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """An opened dataset, a loaded model, and what they are to give."""

    dataset: Dataset
    loaded: LoadedModel
    folder: Path  # of the result
    # By role: where the network's own descriptors go, and their extraction.
    files: dict[str, tuple[Path, DescriptorExtraction]]
    # By role, the database first: where the local features go, and their extraction.
    local: dict[str, tuple[Path, LocalExtraction]]

    @property
    def first(self) -> DescriptorExtraction:
        """The extraction of the queries where there are some, else of the database."""
        return next(iter(self.files.values()))[1]

    def use(self, runtime: ChosenRuntime) -> None:
        """Has all files described by one runtime."""
        for _, extraction in self.files.values():
            extraction.use(runtime)


def _chosen_runtime(prepared: _Prepared, request: ExtractRequest, device: torch.device) -> ChosenRuntime:
    """As choose_runtime has it, by the first photos of the database; `auto` goes on with what an earlier run took."""
    extraction = prepared.files["database"][1] if "database" in prepared.files else prepared.first
    files = extraction.photo_files.files
    photo_paths = [files[name] for name in extraction.names if name in files]
    stored = None
    if request.runtime == "auto" and not request.overwrite:
        stored = next((name for path, _ in prepared.files.values() if (name := stored_runtime(path))), None)
    return choose_runtime(request.runtime, extraction.loaded, extraction.config, device, photo_paths, stored)


def _prepared(
    request: ExtractRequest, choice: ModelChoice | ModelInMemory, device: torch.device, workspace: Workspace | None
) -> _Prepared:
    dataset = request.dataset
    if not isinstance(dataset, Dataset):
        dataset = open_named_dataset(dataset, request.gnd, workspace)
    dataset.database_names  # noqa: B018  an empty folder is told before the model is loaded
    loaded = choice.load()
    work = ExtractWork(
        device=device,
        batch_size=request.batch_size,
        n_workers=request.n_workers,
        skip_bad=request.skip_bad,
        overwrite=request.overwrite,
    )
    roles: list[tuple[Role, str, list[str]]] = [("database", "database.h5", dataset.database_names)]
    if dataset.query_names:
        roles.insert(0, ("query", "queries.h5", dataset.query_names))
    elif request.alone == "query":
        raise UltronError(f"{dataset.name} has no queries; name its ground truth with `gnd`")
    roles = [part for part in roles if request.alone in (None, part[0])]
    configs = {role: extraction_config(request, dataset, role, names, loaded) for role, _, names in roles}
    made_by = None
    if request.alone:
        folder_text = str(dataset.folder.resolve())
        made_by = {**to_dict(configs[request.alone]), "runtime": request.runtime, "dataset_folder": folder_text}
    name = f"{dataset.name}-{_source_name(loaded)}"
    folder = request.out or (workspace or Workspace()).result_path("extract", name, made_by)
    raw_folder, folder = _folders(folder, request, loaded)
    files = {
        role: (raw_folder / name, DescriptorExtraction(dataset, names, loaded, configs[role], work))
        for role, name, names in roles
    }
    described: dict[Role, tuple[Path, DescriptorExtraction]] = {
        role: (folder / name, files[role][1]) for role, name, _ in roles
    }
    local = local_extractions(request.local, dataset, described) if request.local else {}
    return _Prepared(dataset=dataset, loaded=loaded, folder=folder, files=files, local=local)


def _extract(
    prepared: _Prepared, request: ExtractRequest, processes: ExtractionProcesses, workspace: Workspace | None
) -> ExtractSummary:
    """Writes the files; returns the summary."""
    loaded = prepared.loaded
    folder = prepared.folder
    results = {role: extract_file(extraction, path, processes) for role, (path, extraction) in prepared.files.items()}
    paths = {role: result.path for role, result in results.items()}
    record = prepared.first.record
    dim = loaded.model.descriptor_dim
    if request.whitening:
        paths = {role: write_whitened(path, folder / path.name, request.whitening) for role, path in paths.items()}
        record = record.whitened(request.whitening.record())
        dim = request.whitening.dim
    local = {role: extract_local(extraction, path, processes) for role, (path, extraction) in prepared.local.items()}
    if workspace is not None and request.alone is None:
        workspace.remember("extract", folder)
    skipped: list[SkippedInRole] = [
        {"name": photo.name, "reason": photo.reason, "role": role}
        for role, result in results.items()
        for photo in result.skipped
    ]
    if skipped:
        log.warning("left out %s that could not be decoded", counted(len(skipped), "photo"))
    return {
        "model": loaded.model.label,
        "dataset": prepared.dataset.name,
        "folder": str(folder),
        "dim": dim,
        "weights_sha256": loaded.weights_sha256,
        "config": dict(record.stored),
        "protocol": record.protocol_text(),
        "skipped": skipped,
        "files": {
            role: {"path": str(paths[role]), "n": result.n_photos, "computed": result.n_computed}
            for role, result in results.items()
        },
        "local": local,
    }


def _require_space(prepared: _Prepared, whitening: Whitening | None) -> None:
    """Raises WorkFailed, with the amount that is missing, if the files will not fit on the disk."""
    n_bytes = sum(extraction.disk_bytes(path, parts_of(path)) for path, extraction in prepared.files.values())
    n_bytes += sum(extraction.disk_bytes(path, parts_of(path)) for path, extraction in prepared.local.values())
    if whitening is not None:
        n_bytes += sum(4 * whitening.dim * len(extraction.names) for _, extraction in prepared.files.values())
    require_space(prepared.folder, n_bytes, "the extraction")


def _folders(folder: Path, request: ExtractRequest, loaded: LoadedModel) -> tuple[Path, Path]:
    """(folder of the network's descriptors, folder of the result). They differ where a whitening follows, so that what
    was costly stays.

    Raises UltronError if the whitening does not fit the model.
    """
    whitening = request.whitening
    if whitening is None:
        return folder, folder
    whitening.require_for(loaded.model.descriptor_dim, loaded.model.label)
    learned_with = whitening.provenance.get("weights_sha256")
    if learned_with and learned_with != loaded.weights_sha256:
        log.warning("%s was learned from descriptors of other weights than those used now", whitening.path)
    if request.out:
        return folder / "raw", folder
    end = f"{whitening.method}-{whitening.dim}-{short_hash(whitening.record().to_json())}"
    return folder, folder.with_name(f"{folder.name}-{end}")


def write_whitened(raw: Path, out: Path, whitening: Whitening) -> Path:
    """Writes the whitened copy of a descriptor file, block by block, and returns its path."""
    with WhitenedFile(raw, whitening) as source:
        storage = source.info.extraction.storage
        blocks = (rows.astype(storage, copy=False) for _, rows in source.blocks(8192))
        write_descriptors(out, source.names, blocks, source.dim, source.info, source.marks)
    return out


def _source_name(loaded: LoadedModel) -> str:
    """Part of a folder name that tells models apart: the run's name, or the model and how it got its weights."""
    if loaded.source["kind"] == "checkpoint":
        path = Path(loaded.source["path"])
        return path.parent.name if path.name == "checkpoint.pt" else path.stem
    suffix = "-untrained" if loaded.source["kind"] == "untrained" else ""
    return loaded.model.label.replace("/", "_") + suffix
