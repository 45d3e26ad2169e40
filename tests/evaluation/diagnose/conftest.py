"""Descriptors of ours, and references that other programs would make of the same photos."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from ultron_cli.datasets.folder import Dataset, open_folder
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extract_dataset
from ultron_cli.workspace import Workspace

CHOICE = ModelChoice(untrained=True, model="gem", settings={"backbone": "test_resnet"})
SIDE_PX = 80
SCALES = (0.7071, 1.0)


@dataclass(frozen=True)
class Ours:
    """Descriptors of rendered landmarks by a small network, and what made them."""

    folder: Path  # of queries.h5 and database.h5
    dataset: Dataset
    model: RetrievalModel


@pytest.fixture(scope="session")
def photos(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight queries with edges of boxes between pixels, two of them stored on their side, and eight other photos."""
    folder = tmp_path_factory.mktemp("photos") / "mixed"
    (folder / "jpg").mkdir(parents=True)
    paths = sorted((toy / "jpg").glob("*.jpg"))[:16]
    rng = np.random.default_rng(5)
    boxes = []
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            left, top, right, bottom = rng.uniform(2, 9, 4)
            boxes.append([left, top, image.width - right, image.height - bottom])
            if i in (2, 5):
                tag = Image.Exif()
                tag[0x0112] = 6
                image.transpose(Image.Transpose.ROTATE_90).save(folder / "jpg" / path.name, quality=95, exif=tag)
            else:
                shutil.copy(path, folder / "jpg" / path.name)
    truth = {
        "imlist": [path.stem for path in paths[8:]],
        "qimlist": [path.stem for path in paths[:8]],
        "gnd": [{"bbx": box, "easy": [0], "hard": [], "junk": []} for box in boxes[:8]],
    }
    (folder / "gnd_mixed.json").write_text(json.dumps(truth))
    return folder


def extracted(photos: Path, folder: Path, **changes: object) -> Path:
    """The folder of queries.h5 and database.h5 that ultron makes with some settings changed."""
    settings = {
        "dataset": str(photos),
        "scales": SCALES,
        "max_side_px": SIDE_PX,
        "n_workers": 0,
        "out": folder,
    } | changes
    extract_dataset(ExtractRequest(**settings), CHOICE, "cpu", Workspace(root=folder / "runs"))
    return folder


@pytest.fixture(scope="session")
def ours(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Ours:
    folder = extracted(photos, tmp_path_factory.mktemp("diagnose") / "ours")
    return Ours(folder, open_folder(photos), CHOICE.load().model)


Pixels = Callable[[Image.Image, tuple[float, ...]], np.ndarray]


def cropped_and_sized(image: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    """(H, W, 3) uint8, as `ultron extract` does it, by other lines."""
    image = image.crop(tuple(round(edge) for edge in box))
    scale = min(1.0, SIDE_PX / max(image.size))
    size = tuple(max(32, round(side * scale)) for side in image.size)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def described(
    ours: Ours,
    pixels_of: Pixels = cropped_and_sized,
    *,
    turns: bool = True,
    colours: tuple[tuple[float, ...], ...] | None = None,
) -> tuple[list[str], np.ndarray]:
    """(names, (n, D) float32) of the queries, as another program makes them."""
    model = ours.model
    numbers = colours or (model.preprocessing.mean, model.preprocessing.sd)
    mean, sd = (torch.tensor(values)[:, None, None] for values in numbers)
    rows = []
    names = ours.dataset.query_names
    for name in names:
        box = ours.dataset.query(name).bbx
        assert box is not None
        with Image.open(ours.dataset.photo_path(name)) as image:
            pixels = pixels_of((ImageOps.exif_transpose(image) if turns else image).convert("RGB"), box)
        images = ((torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255 - mean) / sd)[None]
        total = torch.zeros(model.descriptor_dim)
        for scale in SCALES:
            sides = [max(32, int(side * scale)) for side in images.shape[-2:]]
            is_small = sides != [int(side * scale) for side in images.shape[-2:]]
            size = {"size": sides} if is_small else {"scale_factor": scale}
            scaled = images if scale == 1 else F.interpolate(images, mode="bilinear", align_corners=False, **size)
            with torch.inference_mode():
                total += F.normalize(model.backbone(scaled).clamp(min=1e-6).pow(3).mean((-2, -1)).pow(1 / 3), dim=1)[0]
        rows.append(F.normalize(total, dim=0).numpy())
    return names, np.stack(rows)


def write_reference(path: Path, names: list[str], rows: np.ndarray, *, shuffled: bool = True) -> Path:
    """An HDF5 file as another program writes it: no attributes, the photos in another order."""
    order = np.random.default_rng(0).permutation(len(names)) if shuffled else np.arange(len(names))
    with h5py.File(path, "w") as file:
        file["names"] = [names[i] for i in order]
        file["descriptors"] = rows[order]
    return path
