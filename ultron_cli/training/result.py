"""What a training leaves, for a program: the run's folder and what stands in it."""

from dataclasses import dataclass, field
from pathlib import Path

from ultron_cli.console import html_table, lines, table
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.training.autola.config import AutolaConfig
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.run.journal import held_out_text
from ultron_cli.training.start import AutolaSummary, TrainSummary


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: of a training, or of AutoLA's search. As text and in a notebook it is the table of its epochs.

    Of the plain data that `ultron train --json` prints, run[key] is an entry.
    """

    summary: TrainSummary | AutolaSummary
    # Held as long as the run: a temporary folder that it lies in.
    place: object = field(default=None, compare=False)

    @property
    def folder(self) -> Path:
        """Its folder: configuration, curves, checkpoint."""
        return Path(self.summary.run)

    @property
    def config(self) -> TrainConfig | AutolaConfig:
        """All its settings."""
        return self.summary.config

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Loss, accuracy, held-out scores and speed, an entry per epoch."""
        return self.summary.metrics

    @property
    def checkpoint(self) -> Path:
        """The trained network's file. Raises UltronError for a search, which leaves none."""
        if not isinstance(self.summary, TrainSummary):
            raise UltronError(
                f"{self.folder} is AutoLA's search, which leaves a genotype ({self.summary.genotype}) and no network; "
                "train one with the setting `model.genotype`"
            )
        return Path(self.summary.checkpoint)

    def load(self) -> RetrievalModel:
        """The trained network, in evaluation mode: .forward(images (B, 3, H, W)) -> (B, D) unit descriptors."""
        return load_checkpoint(self.checkpoint).model

    def __getitem__(self, key: str) -> object:
        return self.summary.to_plain()[key]

    def _headline(self) -> str:
        summary = self.summary
        if isinstance(summary, AutolaSummary):
            return f"genotype {summary.genotype} ({self.folder})"
        last = held_out_text(summary.metrics[-1]) if summary.metrics else ""
        return f"{summary.model}{f', {last}' if last else ''}, {summary.seconds:.0f} s ({self.folder})"

    def _epochs(self) -> tuple[list[str], list[list[str]]]:
        columns = list(dict.fromkeys(key for entry in self.metrics for key in entry))
        return columns, [[f"{entry[key]:.4g}" if key in entry else "-" for key in columns] for entry in self.metrics]

    def __repr__(self) -> str:
        return lines(table(*self._epochs(), what="epochs", all_in=str(self.folder)), self._headline())

    def _repr_html_(self) -> str:
        return html_table(*self._epochs(), below=self._headline())
