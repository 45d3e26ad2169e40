"""A training of a head on stored descriptors: minutes on a CPU, as no network is run.

Batches, split, loss, optimiser, checkpoints and resuming are those of any training. The run ends with checkpoint.pt,
which names the network under the head and holds the head alone, and for a linear head with whitening.h5.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ultron_cli import distributed
from ultron_cli.blocks import chunks
from ultron_cli.configs import differences, from_dict
from ultron_cli.console import counted, log
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.landmarks.split import Exclusion
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.heads import AdaptedSettings, FreeHead, LinearHead
from ultron_cli.models.weights.checkpoints import FrozenBase, save_head
from ultron_cli.retrieval.whitening_learning import principal
from ultron_cli.training.batches.draws import EpochBatches
from ultron_cli.training.batches.photos import Batch
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.heads.as_whitening import write_as_whitening
from ultron_cli.training.heads.described import DescribedPhotos, DescribedRows, base_of
from ultron_cli.training.learner import Learner
from ultron_cli.training.loop import Training
from ultron_cli.training.run.checkpoints import State
from ultron_cli.training.run.folder import RESULT_FILE, WHITENING_FILE
from ultron_cli.training.validation import RetrievalValidation, choose_photos, retrieval_map

ROWS_AT_ONCE = 4096


class HeadLearner(Learner):
    """A Learner whose network is a head, and whose photos are their descriptors."""

    def __init__(
        self, config: TrainConfig, n_landmarks: int, steps_per_epoch: int, device: torch.device, head: FreeHead
    ) -> None:
        self.head = head
        super().__init__(config, n_landmarks, steps_per_epoch, device)

    def _make_model(self) -> RetrievalModel:
        # What a Learner asks of a network a head has too: parameters, descriptor_dim, label.
        return cast(RetrievalModel, self.head)

    def _freeze_unused(self) -> None:
        """Every parameter of a head is used."""

    def reader(self, photos: LandmarkPhotos, what: str) -> RetrievalValidation:
        return DescriptorValidation(cast(DescribedPhotos, photos))

    def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, D) stored descriptors, as they are."""
        return pixels


class StoredBatches:
    """The batches of descriptors in the order of `batches`."""

    def __init__(self, photos: DescribedPhotos, batches: EpochBatches) -> None:
        self.photos = photos
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        for draws in self.batches:
            rows = np.array([draw.row for draw in draws], np.int64)
            descriptors = torch.from_numpy(self.photos.descriptors(rows))
            yield Batch(descriptors, torch.from_numpy(self.photos.labels[rows]), torch.from_numpy(rows), [])


class DescriptorValidation(RetrievalValidation):
    """Held-out photos by their stored descriptors."""

    def __init__(self, photos: DescribedPhotos) -> None:
        super().__init__(photos, side_px=0, n_workers=0)
        self.described_photos = photos

    def described(
        self, model: RetrievalModel, device: torch.device, unit_norm: bool = True
    ) -> Iterator[tuple[list[int], torch.Tensor]]:
        for start, stop in chunks(len(self.described_photos.rows), ROWS_AT_ONCE):
            stored = torch.from_numpy(self.described_photos.descriptors(slice(start, stop)))
            with torch.inference_mode():
                yield (
                    list(range(start, stop)),
                    cast(torch.Tensor, model(stored.to(device), unit_norm=unit_norm)).float(),
                )

    def unadapted_map(self) -> float:
        """mAP of the descriptors as they are stored."""
        return retrieval_map(self.described_photos.descriptors(slice(None)), self.described_photos.labels).mAP


class HeadTraining(Training):
    """A run on stored descriptors."""

    learner: HeadLearner
    validation: DescriptorValidation | None

    def __init__(
        self,
        config: TrainConfig,
        photos: LandmarkPhotos,
        device: torch.device,
        excluded: list[Exclusion] | None = None,
    ) -> None:
        """photos: DescribedPhotos, of which exclusion lists may have taken some."""
        assert isinstance(photos, DescribedPhotos)
        self.described_photos = photos
        self.base: FrozenBase = base_of(photos.source.info, Path(photos.source.label))
        super().__init__(config, photos, device, excluded)

    @property
    def train_photos(self) -> DescribedPhotos:
        """Those that are trained on."""
        return cast(DescribedPhotos, self.photos)

    def _make_learner(self) -> HeadLearner:
        torch.manual_seed(self.config.seed)
        model = self.base.model
        of_base = {"name": model["name"], **cast(dict[str, object], model["settings"])}
        settings = {**self.config.model_settings, "base": of_base}
        head = FreeHead(
            self.described_photos.source.dim, from_dict(AdaptedSettings, settings, "model."), self.base.label
        )
        return HeadLearner(self.config, len(self.photos.landmark_names), self.n_batches, self.device, head)

    def _make_loader(self) -> Iterable[Batch]:
        return StoredBatches(self.train_photos, self.batches)

    def _make_validation(self, scored: LandmarkPhotos | None) -> DescriptorValidation | None:
        rows = self.split.held_out_rows
        if len(rows):
            rows = choose_photos(self.described_photos, rows, self.config.validation.max_photos, self.config.seed)
        return DescriptorValidation(self.described_photos.take(rows)) if len(rows) >= 2 else None

    def origin(self, photo_folder: Path) -> dict[str, object]:
        """What makes the run: also the descriptors, and the network that made them."""
        return {
            **super().origin(photo_folder),
            "descriptors": str(Path(self.described_photos.source.label).absolute()),
            "base": asdict(self.base),
        }

    def _start_weights(self, folder: Path, is_new: bool) -> None:
        super()._start_weights(folder, is_new)
        if is_new and self.learner.head.settings.start == "pca-whitening":
            self._start_from_whitening()
        if is_new and self.validation and distributed.process_index() == 0:
            log.info("held-out mAP of the descriptors as they are: %.1f %%", 100 * self.validation.unadapted_map())

    @torch.no_grad()
    def _start_from_whitening(self) -> None:
        """Gives the linear layer the PCA-whitening of the descriptors to train on, at the length of its random weights:
        the result is made a unit vector, but steps are felt by the length."""
        mean, projection, _ = principal(DescribedRows(self.train_photos), whiten=True)
        linear = cast(LinearHead, self.learner.head.head)
        n_rows = linear.out_features
        if len(projection) < n_rows:
            raise UltronError(
                f"{counted(len(self.photos.labels), 'descriptor')} determine {len(projection)} dimensions of a "
                f"whitening, found model.descriptor_dim {n_rows}; use `model.descriptor_dim={len(projection)}`"
            )
        matrix = torch.from_numpy(projection[:n_rows])
        matrix *= linear.weight.double().norm().cpu() / matrix.norm()
        linear.weight.copy_(matrix)
        linear.bias.copy_(-(matrix @ torch.from_numpy(mean)))
        self.learner.load_model(self.learner.model.state_dict())

    def state(self) -> State:
        return {**super().state(), "base": asdict(self.base)}

    def load(self, folder: Path, state: State) -> None:
        differing = differences(state.pop("base"), asdict(self.base))
        if differing:
            raise UltronError(
                f"{self.described_photos.source.label} holds other descriptors than {folder} was started with: "
                f"{'; '.join(differing)}; restore them, or start a new run"
            )
        super().load(folder, state)

    def _write_checkpoint(self, folder: Path, extra: dict[str, object]) -> None:
        head = self.learner.head
        info = self.described_photos.source.info
        if isinstance(head.head, LinearHead):
            write_as_whitening(folder / WHITENING_FILE, head.head, info)
        trained_on = {**cast(dict[str, object], extra["train_config"]), "dataset": info.dataset}
        save_head(folder / RESULT_FILE, head, self.base, {**extra, "train_config": trained_on})
