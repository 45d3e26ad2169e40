"""Does `ultron diagnose` name what is wrong? One or two settings are hidden at random, a hundred times.

    python examples/hidden_settings.py [--trials 50] [--write docs/evaluation.md]

Ten real photos (../shared/minidev) with edges of boxes between pixels, three of them stored on their side, are
described by each of two networks. In every trial one or two settings of all that are tried are changed at random; from
the descriptors alone the changes are to be found. A trial is right if exactly the hidden settings are named, with their
values. Changes without an effect (another join of a single scale) are drawn again. References are made by the code that
searches, so this says how well causes are told apart; that a recipe is what other programs do is held elsewhere.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ultron_cli.console import start_log
from ultron_cli.datasets.folder import Dataset, open_folder
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.diagnose.causes import Cause, CauseSearch
from ultron_cli.evaluation.diagnose.making import Maker, Photo
from ultron_cli.evaluation.diagnose.recipes import Means, Recipe
from ultron_cli.evaluation.diagnose.rows import shown_by_rows
from ultron_cli.evaluation.diagnose.settings import SETTINGS, Setting
from ultron_cli.files import replace_between
from ultron_cli.models.weights.checkpoints import load_weights
from ultron_cli.retrieval.whitening import Whitening

NETWORKS = ("tf_efficientnet_lite0", "tf_efficientnet_lite2")
N_PHOTOS, N_TURNED, N_WHITENED_DIMS = 10, 3, 8
TELLS = 1e-5  # of 1 - cosine, the mean: a change of less is none
BEGIN, END = "<!-- begin: examples/hidden_settings.py -->", "<!-- end: examples/hidden_settings.py -->"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--photos", type=Path, default=shared / "minidev", help="dataset (default: %(default)s)")
    parser.add_argument("--weights", type=Path, default=shared / "weights", help="folder of NETWORK.pth")
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--trials", type=int, default=50, help="of each network")
    parser.add_argument("--max-side", type=int, default=256, help="longest side of the photos in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="put the text into this file, between its markers")
    return parser.parse_args()


def photos_of(dataset: Dataset, folder: Path, rng: np.random.Generator) -> list[Photo]:
    """Queries whose boxes end between pixels; the first few are copied to `folder` as cameras store them, on a side."""
    photos = []
    for i, name in enumerate(dataset.query_names[:N_PHOTOS]):
        path, bbx = dataset.photo_path(name), dataset.query(name).bbx
        assert bbx is not None
        if i < N_TURNED:
            with Image.open(path) as image:
                tag = Image.Exif()
                tag[0x0112] = 6  # to be turned clockwise
                path = folder / f"{name}.jpg"
                image.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=tag)
        x1, y1, x2, y2 = bbx
        left, top, right, bottom = rng.uniform(0.1, 0.9, 4)
        photos.append(Photo(name, path, (x1 + left, y1 + top, x2 - right, y2 - bottom)))
    return [photos[i] for i in rng.permutation(len(photos))]


def whitening_of(rows: np.ndarray) -> Whitening:
    """PCA whitening of (n, D) descriptors."""
    mean = rows.mean(axis=0)
    _, values, directions = np.linalg.svd(rows - mean, full_matrices=False)
    projection = directions[:N_WHITENED_DIMS] / values[:N_WHITENED_DIMS, None]
    return Whitening(method="pca", mean=mean, projection=projection, eigenvalues=values[:N_WHITENED_DIMS] ** 2)


def drawn(search: CauseSearch, rng: np.random.Generator, n_hidden: int) -> tuple[Recipe, list[Setting]]:
    """A recipe that differs from the start in so many settings, each of which shows beside the others."""
    while True:
        settings = [SETTINGS[i] for i in rng.choice(len(SETTINGS), n_hidden, replace=False)]
        recipe = search.start
        for setting in settings:
            variants = setting.variants(recipe, search.means)
            recipe = variants[rng.integers(len(variants))] if variants else recipe
        photo_rows = range(len(search.maker.photos))
        rows = search.maker.rows(recipe, photo_rows)
        is_shown = True
        for setting in settings:
            without = search.maker.rows(setting.put(recipe, setting.of(search.start)), photo_rows)
            is_shown &= rows.shape != without.shape or 1 - np.einsum("nd,nd->n", rows, without).mean() > TELLS
        if is_shown:
            return recipe, settings


def is_right(causes: list[Cause], recipe: Recipe, hidden: list[Setting]) -> bool:
    """Whether the causes named are the hidden ones, with their values."""
    named = {cause.setting: (cause.reference, *cause.equal) for cause in causes}
    return len(causes) == len(hidden) and all(
        setting.in_words(setting.of(recipe)) in named.get(setting.words, ()) for setting in hidden
    )


def main() -> int:
    arguments = parse()
    start_log(0)
    dataset = open_folder(arguments.photos)
    lines = []
    missed: Counter[str] = Counter()
    for number, network in enumerate(arguments.networks):
        rng = np.random.default_rng(arguments.seed + number)
        loaded = load_weights(arguments.weights / f"{network}.pth", "gem", {"backbone": network})
        preprocessing = loaded.model.preprocessing
        with tempfile.TemporaryDirectory() as folder:
            photos = photos_of(dataset, Path(folder), rng)
            maker = Maker(loaded.model, photos, torch.device("cpu"))
            plain = Recipe(
                crop="bbx",
                max_side_px=arguments.max_side,
                interpolation=preprocessing.interpolation,
                colours=(tuple(preprocessing.mean), tuple(preprocessing.sd)),
                scaling=preprocessing.scaling,
                scales=(0.7071, 1.0, 1.4142),
            )
            maker.whitening = whitening_of(maker.rows(plain, range(N_PHOTOS)))
            means = Means(may_pool=True, exponent=maker.exponent, has_whitening=True, may_be_negative=False)
            right: Counter[int] = Counter()
            total: Counter[int] = Counter()
            begun, n_passes = time.monotonic(), []
            for trial in range(arguments.trials):
                start = Recipe(**{**vars(plain), "whitening": "after joining"}) if trial % 4 == 3 else plain
                ours = maker.rows(start, range(N_PHOTOS))
                recipe, hidden = drawn(CauseSearch(maker, ours, start, means), rng, 1 + trial % 2)
                reference = maker.rows(recipe, range(N_PHOTOS)).astype(np.float32).astype(np.float64)
                n_before = maker.n_passes
                shown = shown_by_rows(ours, reference, np.arange(N_PHOTOS))
                search = CauseSearch(maker, shown.reference, start, means)
                causes = [shown.cause] if shown.cause else search.run()[1]
                n_passes.append(maker.n_passes - n_before)
                is_found = is_right(causes, recipe, hidden) and shown.misnamed is None
                total[len(hidden)] += 1
                right[len(hidden)] += is_found
                wanted_text = "; ".join(
                    f"{setting.words}: {setting.in_words(setting.of(recipe))}" for setting in hidden
                )
                print(f"{network} {trial} {'right' if is_found else 'WRONG'} ({wanted_text})", flush=True)
                if not is_found:
                    missed.update(setting.words for setting in hidden)
                    print("   named:", *(f"{c.setting}: {c.reference} ({c.cosine:.7f})" for c in causes), flush=True)
            lines.append(
                f"| {network} | {right[1]} of {total[1]} | {right[2]} of {total[2]} | "
                f"{np.median(n_passes):.0f} ({max(n_passes)}) |"
            )
            print(f"{time.monotonic() - begun:.0f} s, {maker.n_passes} passes", flush=True)
    text = "\n".join(
        [
            "| network | one hidden | two hidden | passes of the network, median (most) |",
            "| --- | ---: | ---: | ---: |",
            *lines,
        ]
    )
    print(text)
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
