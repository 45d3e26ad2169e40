"""The training data pipeline against torchvision's ImageFolder on the same JPEGs, in photos per second and core.

    python benchmarks/train.py [--photos DIR] [--side 512] [--photo-side 1600] [--rounds 3] [--share-epochs 2]
                               [--share-landmarks 40]

It also measures for which share of its time a training waits for photos. Without --photos, landmarks are rendered and
enlarged to the size of GLDv2's photos. Both sides run in this one process on one thread. Each reads, decodes, crops at
random, resizes, flips and jitters colours, and gives uint8 tensors. The limit, in turns with them, is Pillow's decoding
of the same photos at the scales at which ours decodes them. First it is checked that both show the same part of
the photos: with crops of the whole photo and no jitter, their mean absolute difference must stay below 4 of 255. It is
not 0, because the scaled decoding smooths in another way than a resize does.
"""

import argparse

from ultron_cli.machine import share_cores

if __name__ == "__main__":  # before torch, as the command does
    share_cores()

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from rows import add_save, save
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from ultron_cli import console
from ultron_cli.configs import from_dict
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.datasets.photo_files import OpenPhoto, open_photo
from ultron_cli.datasets.toy import ToyConfig, make_toy
from ultron_cli.machine import cpu_name, n_cores
from ultron_cli.measurements import Measurement
from ultron_cli.provenance import package_versions
from ultron_cli.training.batches.draws import PhotoDraw
from ultron_cli.training.batches.photos import Augmentation, TrainingPhotos
from ultron_cli.training.config import AugmentConfig, TrainConfig
from ultron_cli.training.loop import Training
from ultron_cli.training.presets import load_config

DECODING = "decoding alone"
LEAST_SPEEDUP, MOST_DIFFERENCE, MOST_WAITING = 1.5, 4.0, 0.05


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder with one folder per landmark")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--photo-side", type=int, default=1600, help="longest side of rendered photos")
    parser.add_argument("--n-photos", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--share-epochs",
        type=int,
        default=2,
        help="epochs of the quickstart network to measure the waiting in; 0: none",
    )
    parser.add_argument("--share-landmarks", type=int, default=40, help="rendered for it, six photos of each")
    add_save(parser)
    return parser.parse_args()


def render(folder: Path, n_photos: int, side_px: int) -> Path:
    """Renders photos, and enlarges them with some noise so that the JPEGs are as large as those of photographs. Returns
    the folder."""
    config = ToyConfig(
        n_train_landmarks=n_photos // 4,
        n_train_photos=4,
        n_eval_landmarks=1,
        n_database_photos=1,
        n_distractors=0,
        max_side_px=512,
    )
    make_toy(folder, config, workers=0)
    noise = np.random.default_rng(0)
    for path in (folder / "train").rglob("*.jpg"):
        image = Image.open(path)
        scale = side_px / max(image.size)
        pixels = np.asarray(
            image.resize((round(image.width * scale), round(image.height * scale)), Image.BICUBIC), np.float32
        )
        Image.fromarray((pixels + noise.normal(0, 3, pixels.shape[:2])[..., None]).clip(0, 255).astype(np.uint8)).save(
            path, quality=85
        )
    return folder


def torchvision_side(photos: LandmarkPhotos, config: AugmentConfig, side_px: int) -> ImageFolder:
    """The photos as a plain training script loads them."""
    steps = [
        v2.PILToTensor(),
        v2.RandomResizedCrop(side_px, scale=config.crop_area, ratio=config.crop_aspect, antialias=True),
    ]
    steps += [v2.RandomHorizontalFlip()] if config.flip else []
    jitter = (config.brightness, config.contrast, config.saturation, config.hue)
    return ImageFolder(
        str(photos.folder), transform=v2.Compose([*steps, *([v2.ColorJitter(*jitter)] if any(jitter) else [])])
    )


def largest_difference(photos: LandmarkPhotos, side_px: int) -> float:
    """The mean absolute difference (0..255) of the two sides on a whole photo, the largest of eight photos."""
    values = []
    for path in list(photos.paths)[:8]:
        ours = whole_photo(path, side_px)
        pixels = v2.functional.pil_to_tensor(Image.open(path).convert("RGB"))
        values.append(
            float(
                (ours.float() - v2.functional.resize(pixels, [side_px, side_px], antialias=True).float()).abs().mean()
            )
        )
    return max(values)


def whole_photo(path: Path, side_px: int) -> torch.Tensor:
    """(3, S, S) uint8: the whole photo through our pipeline. The crop must have the photo's area and aspect."""
    width, height = Image.open(path).size
    whole = AugmentConfig(
        crop_area=(1.0, 1.0),
        crop_aspect=(width / height, width / height),
        brightness=0,
        contrast=0,
        saturation=0,
        hue=0,
        flip=False,
    )
    return Augmentation(whole, [(side_px, side_px)])(path, 0)


def decoding_alone(load: Callable[[int], Any], n: int) -> Callable[[int], object]:
    """What decodes the photo of a number, of n, at the scale at which `load` decodes it."""
    drafts: list[tuple[Path, float]] = []
    draft = OpenPhoto.draft

    def recorded(photo: OpenPhoto, scale: float) -> None:
        assert isinstance(photo.source, Path)
        drafts.append((photo.source, scale))
        draft(photo, scale)

    with mock.patch.object(OpenPhoto, "draft", recorded):
        for i in range(n):
            load(i)
    if len(drafts) != n:
        raise RuntimeError(f"{n} photos should be decoded once each, {len(drafts)} were")

    def decode(i: int) -> object:
        path, scale = drafts[i]
        with open_photo(path) as photo:
            photo.draft(scale)
            return photo.image.load()

    return decode


def measure(sides: dict[str, Callable[[int], Any]], n: int, rounds: int) -> dict[str, list[float]]:
    """Photos per second of processor time of each side, round by round; in it, what others do on the machine counts
    less.

    sides: name -> what loads the photo of a number. n: photos per round.
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(rounds + 1):  # the first warms up
        for name, load in sides.items():
            started_s = time.process_time()
            for i in range(n):
                load(i)
            if round_number:
                rates[name].append(n / (time.process_time() - started_s))
    return rates


def waiting(photos: LandmarkPhotos, folder: Path, epochs: int) -> tuple[float, str]:
    """The share of its time that the training of the quickstart network waits for photos, and what was trained as
    text."""
    values = load_config("quickstart", None, []).to_plain() | {
        "epochs": epochs + 1,
        "batch_size": 16,
        "log_every": 10**6,
        "validation": {"share": 0.0},
    }
    config = from_dict(TrainConfig, values)
    metrics = Training(config, photos, torch.device("cpu")).run(folder)
    return statistics.median(
        entry["wait_share"] for entry in metrics[1:]
    ), f"{config.model['name']}-{config.model.get('backbone', '')}, {config.side_px} px"


def main() -> int:
    arguments = parse()
    console.start_log(-1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.photos or render(Path(temporary) / "photos", arguments.n_photos, arguments.photo_side)
        photos = open_landmark_photos(folder)
        difference = largest_difference(photos, arguments.side)
        if difference > MOST_DIFFERENCE:
            print(f"the two sides differ by {difference:.2f} of 255 on whole photos: nothing is timed", file=sys.stderr)
            return 1
        config = AugmentConfig()
        theirs, ours = (
            torchvision_side(photos, config, arguments.side),
            TrainingPhotos(photos, Augmentation(config, [(arguments.side, arguments.side)])),
        )
        n = min(arguments.n_photos, len(photos.labels))
        sides = {"torchvision ImageFolder": lambda i: theirs[i], "ultron": lambda i: ours[PhotoDraw(i, i, 0)]}
        rates = measure(sides | {DECODING: decoding_alone(sides["ultron"], n)}, n, arguments.rounds)
        share, what = float("nan"), "not measured"
        if arguments.share_epochs:
            share, what = waiting(
                small_photos(Path(temporary), arguments.share_landmarks),
                Path(temporary) / "run",
                arguments.share_epochs,
            )
        sizes = sorted({Image.open(path).size for path in list(photos.paths)[:n]})
    versions = package_versions()
    print(
        f"{cpu_name()}, {n_cores()} cores, torch {versions['torch']} (1 thread), torchvision "
        f"{versions['torchvision']}, pillow {versions['pillow']}"
    )
    print(
        f"{n} JPEG photos of {sizes[0]} to {sizes[-1]} px -> {arguments.side} x {arguments.side} uint8; crop, "
        "flip, jitter with hue"
    )
    for name, values in rates.items():
        print(
            f"{name:<24} {statistics.median(values):7.1f} photos/s and core (median of {len(values)}, "
            f"{min(values):.1f} to {max(values):.1f})"
        )
    decoding = rates.pop(DECODING)
    speedup = statistics.median(b / a for a, b in zip(*rates.values(), strict=True))
    print(
        f"speed-up {speedup:.2f} (at least {LEAST_SPEEDUP} wanted); largest difference on whole photos "
        f"{difference:.2f} of 255"
    )
    print(
        f"waiting for photos: {100 * share:.1f} % of the training time ({what}; below {100 * MOST_WAITING:.0f} "
        "% wanted)"
    )
    row = Measurement.of_rounds(
        rates.pop("ultron"),
        unit="photos/s",
        of=f"{n} JPEG photos of {sizes[0]} to {sizes[-1]} px to {arguments.side} px, per second of one core",
        others=rates,
        limits={DECODING: decoding},
        equality=f"whole photos, to torchvision's within {MOST_DIFFERENCE:.0f} of 255 on average",
    )
    save(arguments.save, __file__, {"photos for training": row})
    return 0 if speedup >= LEAST_SPEEDUP and not share > MOST_WAITING else 1


def small_photos(temporary: Path, n_landmarks: int) -> LandmarkPhotos:
    """Renders photos of the default size, for the measurement of waiting."""
    config = ToyConfig(
        n_train_landmarks=n_landmarks, n_train_photos=6, n_eval_landmarks=1, n_database_photos=1, n_distractors=0
    )
    make_toy(temporary / "small", config, workers=0)
    return open_landmark_photos(temporary / "small")


if __name__ == "__main__":
    sys.exit(main())
