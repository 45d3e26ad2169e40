"""Extraction from photo files against the bare network on tensors in memory, in photos per second.

    python benchmarks/extract.py [--photos DIR] [--backbone tf_efficientnet_lite0] [--max-side 640] [--rounds 5]

Both sides are timed in one run, in turns. Without --photos, landmarks are rendered at the size asked for. The bare side
runs the same network on the same batches, which are decoded, stacked and normalised beforehand, and does nothing else.
Before anything is timed, the descriptors of both sides must be equal within 1e-5.
"""

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rows import add_save, save

from ultron_cli import console
from ultron_cli.datasets.folder import open_dataset
from ultron_cli.datasets.photos import PhotoReader, batches_by_shape, read_photos
from ultron_cli.datasets.toy import ToyConfig, make_toy
from ultron_cli.machine import cpu_name, n_cores
from ultron_cli.measurements import Measurement
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.provenance import package_versions
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, default_workers, extraction_config
from ultron_cli.retrieval.extraction.files import extract_file
from ultron_cli.retrieval.extraction.scales import at_scale
from ultron_cli.retrieval.extraction.shards import Extraction, ExtractWork

MINIMUM_SHARE = 0.9


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--max-side", type=int, default=640)
    parser.add_argument("--n-photos", type=int, default=48, help="of rendered photos")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument(
        "--workers",
        type=int,
        default=default_workers(torch.device("cpu")),
        help="decoding processes (default: as the command, %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=5)
    add_save(parser)
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    console.start_log(-1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.photos
        if folder is None:
            folder = Path(temporary) / "toy"
            config = ToyConfig(
                n_train_landmarks=0,
                n_eval_landmarks=1,
                n_distractors=arguments.n_photos - 10,
                max_side_px=arguments.max_side,
            )
            make_toy(folder, config, workers=n_cores())
        dataset = open_dataset(str(folder), Path(temporary))
        loaded = ModelChoice(untrained=True, model="gem", settings={"backbone": arguments.backbone}).load()
        work = ExtractWork(
            device=torch.device("cpu"), batch_size=arguments.batch_size, n_workers=arguments.workers, overwrite=True
        )
        request = ExtractRequest(dataset=str(folder), scales=(1.0,), max_side_px=arguments.max_side)
        names = dataset.database_names
        extraction = Extraction(
            dataset, names, loaded, extraction_config(request, dataset, "database", names, loaded), work
        )
        reader = PhotoReader(
            list(range(len(names))), [dataset.photo_path(name) for name in names], [None] * len(names), extraction.shape
        )
        model = loaded.model.to(memory_format=torch.channels_last)
        batches = []  # (rows, (B, 3, H, W) float32, normalised as the network takes it)
        for photos in batches_by_shape(read_photos(reader, 0), arguments.batch_size, 8 * arguments.batch_size):
            pixels = torch.stack([photo.pixels for photo in photos])
            images = at_scale(pixels, 1.0, model.preprocessing, model.min_side_px)
            batches.append(([photo.row for photo in photos], images))

        def bare() -> np.ndarray:
            descriptors = np.empty((len(names), model.descriptor_dim), np.float32)
            with torch.inference_mode():
                for rows, images in batches:
                    descriptors[rows] = F.normalize(model(images).float(), dim=1).numpy()
            return descriptors

        def ours() -> np.ndarray:
            result = extract_file(extraction, Path(temporary) / "database.h5")
            with DescriptorFile(result.path) as stored:
                return stored.read()

        difference = float(np.abs(bare() - ours()).max())  # also the warm-up
        if difference > 1e-5:
            print(f"descriptors differ by {difference}: nothing is timed", file=sys.stderr)
            return 1
        seconds: dict[str, list[float]] = {"bare network": [], "ultron extract": []}
        for _ in range(arguments.rounds):
            for name, side in (("bare network", bare), ("ultron extract", ours)):
                started_s = time.perf_counter()
                side()
                seconds[name].append(time.perf_counter() - started_s)
    versions = package_versions()
    print(
        f"{cpu_name()}, {n_cores()} cores, torch {versions['torch']} ({torch.get_num_threads()} threads), timm "
        f"{versions['timm']}"
    )
    shapes = sorted({tuple(images.shape[-2:]) for _, images in batches})
    print(
        f"{arguments.backbone}, {len(names)} JPEG photos in {len(batches)} batches of up to "
        f"{arguments.batch_size}, shapes {shapes}, 1 scale, float32"
    )
    for name, values in seconds.items():
        rates = [len(names) / value for value in values]
        print(
            f"{name:<15} {statistics.median(rates):7.2f} photos/s (median of {len(rates)}, {min(rates):.2f} to "
            f"{max(rates):.2f})"
        )
    share = statistics.median(b / a for b, a in zip(seconds["bare network"], seconds["ultron extract"], strict=True))
    print(
        f"share {share:.3f} (median of the rounds' ratios, at least {MINIMUM_SHARE} wanted); largest "
        f"difference of descriptors {difference:.1e}"
    )
    rates = {name: [len(names) / value for value in values] for name, values in seconds.items()}
    row = Measurement.of_rounds(
        rates.pop("ultron extract"),
        unit="photos/s",
        of=f"{len(names)} JPEG photos of {arguments.max_side} px, batches of {arguments.batch_size}, 1 scale, float32",
        limits=rates,
        equality=f"descriptors, to those of the bare network within {difference:.0e}",
    )
    save(arguments.save, __file__, {f"extraction, {arguments.backbone}": row})
    return 0 if share >= MINIMUM_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
