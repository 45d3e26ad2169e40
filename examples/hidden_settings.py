"""Does `ultron diagnose` name what is wrong? One or two settings are hidden at random, a hundred times.

    python examples/hidden_settings.py [--out hidden_settings.jsonl] [--write docs/evaluation.md]

Ten real photos (../shared/minidev) with edges of boxes between pixels, three of them stored on their side, are
described by each of two networks. In every trial one or two settings of all that are tried are changed at random; from
the descriptors alone the changes are to be found. A trial is right if exactly the hidden settings are named, with their
values. Changes without an effect (another join of a single scale) are drawn again. References are made by the code that
searches, so this says how well causes are told apart; that a recipe is what other programs do is held elsewhere.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import cast

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
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--trials", type=int, default=50, help="of each network")
    parser.add_argument("--max-side", type=int, default=192, help="longest side of the photos in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path("hidden_settings.jsonl"), help="a line per trial; what is there is done"
    )
    parser.add_argument("--most", type=int, help="trials of each network that are done now (all)")
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


class Trials:
    """The trials of one network: what passed it in one trial is not computed again in the next."""

    def __init__(self, network: str, arguments: argparse.Namespace, folder: Path) -> None:
        self.network = network
        self._seed = (arguments.seed, NETWORKS.index(network))
        loaded = load_weights(arguments.weights / f"{network}.pth", "gem", {"backbone": network})
        preprocessing = loaded.model.preprocessing
        photos = photos_of(open_folder(arguments.photos), folder, np.random.default_rng(self._seed))
        self._maker = Maker(loaded.model, photos, torch.device("cpu"))
        self._plain = Recipe(
            crop="bbx",
            max_side_px=arguments.max_side,
            interpolation=preprocessing.interpolation,
            colours=(tuple(preprocessing.mean), tuple(preprocessing.sd)),
            scaling=preprocessing.scaling,
            scales=(0.7071, 1.0, 1.4142),
        )
        self._rows = range(len(photos))
        self._maker.whitening = whitening_of(self._maker.rows(self._plain, self._rows))
        self._means = Means(may_pool=True, exponent=self._maker.exponent, has_whitening=True, may_be_negative=False)

    def run(self, trial: int) -> dict[str, object]:
        """What was hidden, what was named, and whether it is that; every second trial hides two, every fourth begins
        with whitened descriptors."""
        rng = np.random.default_rng([*self._seed, trial])
        start = replace(self._plain, whitening="after joining") if trial % 4 == 3 else self._plain
        ours = self._maker.rows(start, self._rows)
        recipe, hidden = drawn(CauseSearch(self._maker, ours, start, self._means), rng, 1 + trial % 2)
        reference = self._maker.rows(recipe, self._rows).astype(np.float32).astype(np.float64)
        n_before = self._maker.n_passes
        shown = shown_by_rows(ours, reference, np.arange(len(ours)))
        search = CauseSearch(self._maker, shown.reference, start, self._means)
        causes = [shown.cause] if shown.cause else search.run()[1]
        return {
            "network": self.network,
            "trial": trial,
            "is_right": is_right(causes, recipe, hidden) and shown.misnamed is None,
            "hidden": [f"{setting.words}: {setting.in_words(setting.of(recipe))}" for setting in hidden],
            "causes": [f"{cause.setting}: {cause.reference} ({cause.cosine:.6f})" for cause in causes],
            "passes": self._maker.n_passes - n_before,
        }


def table(results: list[dict[str, object]]) -> str:
    """Markdown: how many trials were right, by network and number of hidden settings."""
    lines = ["| network | one hidden | two hidden |", "| --- | ---: | ---: |"]
    for network in dict.fromkeys(str(result["network"]) for result in results):
        cells = []
        for n_hidden in (1, 2):
            trials = [
                result
                for result in results
                if result["network"] == network and len(cast(list[str], result["hidden"])) == n_hidden
            ]
            cells.append(f"{sum(bool(result['is_right']) for result in trials)} of {len(trials)}")
        lines.append(f"| {network} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    arguments = parse()
    start_log(0)
    lines = arguments.out.read_text(encoding="utf-8").splitlines() if arguments.out.is_file() else []
    results = [json.loads(line) for line in lines]
    done = {(result["network"], result["trial"]) for result in results}
    for network in arguments.networks:
        todo = [trial for trial in range(arguments.trials) if (network, trial) not in done][: arguments.most]
        if not todo:
            continue
        with tempfile.TemporaryDirectory() as folder, arguments.out.open("a", encoding="utf-8") as file:
            trials = Trials(network, arguments, Path(folder))
            for trial in todo:
                results.append(trials.run(trial))
                print(json.dumps(results[-1]), file=file, flush=True)
                if not results[-1]["is_right"]:
                    print(json.dumps(results[-1], indent=1))
    text = table(results)
    print(text)
    if arguments.write:
        replace_between(arguments.write, BEGIN, END, text)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UltronError as error:
        sys.exit(f"error: {error}")
