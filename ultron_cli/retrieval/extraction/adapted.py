"""Stored descriptors through a head that was trained on others of the same network: what an extraction with that head
would give, without running the network."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ultron_cli.errors import UltronError
from ultron_cli.models.adapted import AdaptedModel
from ultron_cli.models.weights.checkpoints import load_checkpoint
from ultron_cli.retrieval.descriptors import DescriptorFile, write_descriptors
from ultron_cli.retrieval.origin import ExtractionRecord, WeightsSource

BLOCK_ROWS = 4096


def adapt_descriptors(path: Path, checkpoint: Path, out: Path, device: torch.device) -> None:
    """Writes the descriptors of a file as a head gives them. checkpoint: of `ultron train --descriptors`.

    Raises UltronError if the checkpoint is no head, or stands on another network than made the descriptors.
    """
    loaded = load_checkpoint(checkpoint)
    model = loaded.model
    if not isinstance(model, AdaptedModel):
        raise UltronError(f"{checkpoint} must be a head over stored descriptors, found {model.label}; train one")
    with DescriptorFile(path) as source:
        stored = source.info.extraction.stored
        if stored.get("model") != model.base.made_of() or source.info.extraction.whitening:
            raise UltronError(
                f"{checkpoint} is a head over {model.base.label}, {path} was made with {source.info.model}; describe "
                "both with one network, without whitening"
            )
        record = {**stored, "model": model.made_of(), "weights_sha256": loaded.weights_sha256}
        info = replace(
            source.info,
            model=model.label,
            weights_sha256=loaded.weights_sha256,
            extraction=ExtractionRecord(stored=record),
            provenance=replace(source.info.provenance, weights=WeightsSource.from_json(loaded.source)),
        )
        head = model.head.to(device).eval()
        storage = np.float16 if source.info.extraction.storage == "float16" else np.float32

        def blocks() -> Iterator[np.ndarray]:
            for _, rows in source.blocks(BLOCK_ROWS):
                with torch.inference_mode():
                    adapted = torch.nn.functional.normalize(head(torch.from_numpy(rows).to(device)), dim=1)
                yield adapted.float().cpu().numpy().astype(storage)

        write_descriptors(out, source.names, blocks(), model.descriptor_dim, info, source.marks)
