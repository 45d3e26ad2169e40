"""Which model a command uses (that of a run, a weights file, timm's download, or fresh weights), and loading it again
later."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultron_cli import user_code
from ultron_cli.console import log
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.files import require_regular_file
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import (
    LoadedModel,
    load_again,
    load_weights,
    pretrained_model,
    sha256_of_weights,
    untrained_model,
)
from ultron_cli.schema.values import shown
from ultron_cli.workspace import Workspace

IN_MEMORY = "memory"  # where the weights of a network were that a program made


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The flags by which a command names a model; None is a flag that is left out."""

    run: str | None = None
    weights: Path | None = None
    pretrained: bool = False
    untrained: bool = False
    seed: int = 0  # of fresh weights
    model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # of the model
    workspace: Workspace = field(default_factory=Workspace)  # where runs are

    def load(self) -> LoadedModel:
        """The chosen model; with nothing chosen, that of the latest training run. Code that model or settings name by
        import path is run. Raises UltronError."""
        user_code.permit_in({"model": self.model, "settings": self.settings})
        values = {
            "`run`": self.run,
            "`weights`": self.weights,
            "`pretrained`": self.pretrained,
            "`untrained`": self.untrained,
        }
        sources = [name for name, value in values.items() if value]
        if len(sources) > 1:
            raise UltronError(f"{' and '.join(sources)} exclude each other; leave one")
        if self.weights:
            return load_weights(self.weights.expanduser(), self.model, self.settings)
        if self.pretrained:
            return pretrained_model(self.model or "gem", self.settings)
        if self.untrained:
            return untrained_model(self.model or "gem", self.settings, self.seed)
        if self.run is None and (self.model or self.settings):
            raise UltronError(
                "`model` and `backbone` name a network, not its weights; add `weights`, `run` or `untrained`",
                "`pretrained`",
            )
        checkpoint = (
            find_checkpoint(self.run, self.workspace)
            if self.run
            else self.workspace.take_latest("train", "name a model by its `weights`") / "checkpoint.pt"
        )
        return load_weights(checkpoint, self.model, self.settings)


@dataclass(frozen=True)
class ModelInMemory:
    """A network that a program has made, in place of a ModelChoice."""

    model: RetrievalModel

    def load(self) -> LoadedModel:
        """The network, put into evaluation mode."""
        return LoadedModel(self.model.eval(), sha256_of_weights(self.model), {"kind": IN_MEMORY})


def find_checkpoint(run: str, workspace: Workspace) -> Path:
    """The checkpoint of a run: its folder, its name in the workspace, or the file itself. Raises UltronError."""
    runs = workspace.root / "train"
    for candidate in (Path(run).expanduser(), runs / run):
        if os.path.isfile(candidate):
            return candidate
        if os.path.isfile(candidate / "checkpoint.pt"):
            return candidate / "checkpoint.pt"
    names = sorted(path.name for path in runs.iterdir()) if runs.is_dir() else []
    some_names = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise UltronError(
        f"run {shown(run)} has no checkpoint.pt, as a path or in {runs}{nearest_names(run[:60], names)}; name a "
        f"finished run (there: {some_names or 'nothing'})"
    )


def reload_model(
    config: dict[str, Any], source: dict[str, Any], weights_sha256: str, override: Path | None = None
) -> LoadedModel:
    """The model that made a descriptor file, from its stored config and provenance.

    override: where the weights are, if they have moved. Raises UltronError if the weights are gone or are no longer
    those of the file.
    """
    name, settings = config["model"]["name"], config["model"]["settings"]
    kind = source.get("kind")
    if kind == IN_MEMORY and override is None:
        raise UltronError(
            "the network that made these descriptors was in a program's memory; describe the photos with it there",
            "give its checkpoint with `weights`",
        )
    path = source.get("path")
    if override is None and path is not None and not os.path.isfile(path):
        raise UltronError(
            f"the weights that made these descriptors were at {path}, which is gone; put them back, or extract again",
            "give them with `weights`",
        )
    code = config["model"].get("code") or {}
    records = {text: user_code.CodeRecord(sha256=sha256) for text, sha256 in code.items()}
    with user_code.stored_code(records, "these descriptors"):
        if override is not None:
            loaded = _moved_weights(override, name, settings)
        else:
            loaded = load_again(name, settings, source)
    if loaded.weights_sha256 != weights_sha256:
        raise UltronError(
            f"the weights ({override or source.get('path') or kind}) are not those the descriptors were made with; "
            "extract again",
            "give the file that made them with `weights`",
        )
    log.info("model %s, weights %s", loaded.model.label, source.get("path") or kind)
    return loaded


def _moved_weights(path: Path, name: str, settings: dict[str, Any]) -> LoadedModel:
    """The network of a descriptor file with weights from another place. Raises UltronError for those of another
    network."""
    require_regular_file(path, "weights")
    try:
        return load_weights(path, name, settings)
    except UltronError as error:
        fault = error.message.removeprefix(f"{path} ").rpartition("; ")[0]
        raise UltronError(
            f"{path} does not hold the weights that made the descriptors ({fault}); give the file that does"
        ) from error
