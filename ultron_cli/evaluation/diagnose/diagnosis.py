"""The whole diagnosis: descriptors alone first, then some photos described again by changed recipes."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ultron_cli.console import counted, log, named
from ultron_cli.datasets.folder import Dataset, open_dataset, open_recorded
from ultron_cli.datasets.photo_files import open_photo
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.diagnose.causes import SAME, Cause, CauseSearch
from ultron_cli.evaluation.diagnose.making import Maker, Photo, target_size
from ultron_cli.evaluation.diagnose.recipes import Means, Recipe
from ultron_cli.evaluation.diagnose.reference import Pairs, read_pairs
from ultron_cli.evaluation.diagnose.rows import RowsShown, cosine, shown_by_rows
from ultron_cli.evaluation.diagnose.settings import SETTINGS
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.gem import GemModel
from ultron_cli.models.superglobal import SuperGlobalModel
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.models.weights.model_choice import reload_model
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo
from ultron_cli.retrieval.extraction.describe import ExtractConfig, photo_shape
from ultron_cli.retrieval.origin import EXTRACTION_WORDS
from ultron_cli.retrieval.whitening import Whitening, stored_whitening

MOST_CANDIDATES = 200  # photos whose headers are read to choose some that show much
AGAIN = 1e-4  # of 1 - cosine: photos described again that differ more are not those of the file
ALL = 1e-4  # of 1 - cosine: what is left of less is other arithmetic, other decoders
OF_PIXELS = ("exif", "crop", "box_edges", "rounding", "interpolation")  # settings that some photos cannot show


@dataclass(frozen=True, kw_only=True)
class DiagnoseRequest:
    """What `ultron diagnose` shall do."""

    ours: Path
    reference: Path
    n_photos: int = 10  # at most, that are described again
    dataset: Path | None = None  # folder of the photos, if they have moved
    gnd: Path | None = None
    weights: Path | None = None  # if they have moved
    whitening: Whitening | None = None  # that of ours if it has moved, or one that the reference may have


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What differs between two descriptor files."""

    n: int  # photos of both
    photos: tuple[str, ...]  # that were described again
    cosine: float  # mean over these, or over all where none were
    lowest: tuple[str, float]  # photo and cosine
    causes: tuple[Cause, ...]
    cosine_after: float  # with ours changed as the causes say
    notes: tuple[str, ...]
    not_shown: tuple[str, ...]  # settings that these photos cannot show
    n_passes: int  # of a photo at one scale through the network
    wall_s: float

    @property
    def verdict(self) -> str:
        """How much the causes explain."""
        left = 1 - self.cosine_after
        if not self.causes:
            if 1 - self.cosine <= ALL:
                return "the descriptors are the same: look at whitening, search, re-ranking and ground truth"
            return "none of what was tried explains it: look at the weights, the network and the photos themselves"
        if left <= ALL:
            return (
                f"that is all: cosine {cosine_text(self.cosine_after)} with {'it' if len(self.causes) == 1 else 'them'}"
            )
        return (
            f"cosine {cosine_text(self.cosine_after)} with {'it' if len(self.causes) == 1 else 'them'}; the rest is of "
            "something else: weights, network, decoder of the photos"
        )

    def to_json(self) -> dict[str, object]:
        """As `ultron diagnose --json` prints it."""
        causes = [{**asdict(cause), "explains": cause.explains} for cause in self.causes]
        return {**asdict(self), "causes": causes, "verdict": self.verdict}

    def to_text(self) -> str:
        """A dozen lines."""
        where = f"{counted(len(self.photos), 'photo')} of {self.n:,}" if self.photos else counted(self.n, "photo")
        parts = [
            f"{where}: cosine {cosine_text(self.cosine)} on average, lowest {self.lowest[1]:.4f} ({self.lowest[0]})"
        ]
        for number, cause in enumerate(self.causes, start=1):
            equal = f" (or {', '.join(cause.equal)})" if cause.equal else ""
            parts.append(
                f"{number}. {cause.setting}: {cause.reference}{equal} instead of {cause.ours} explains "
                f"{cause.explains:.2f} of what differs (cosine {cosine_text(cause.cosine_before)} -> "
                f"{cosine_text(cause.cosine)}); {cause.mend}"
            )
        parts.append(self.verdict)
        parts += self.notes
        if self.not_shown:
            parts.append(f"these photos cannot show: {', '.join(self.not_shown)}")
        if self.n_passes:
            parts.append(f"{self.n_passes:,} passes of the network, {self.wall_s:.0f} s")
        return "\n".join(parts)


def cosine_text(value: float) -> str:
    """Four digits, and more where they are nines: 0.999987."""
    left = max(1 - value, 0.0)
    digits = 4 if left >= 1e-3 else 6 if left >= 1e-6 else 7
    return f"{min(value, 1.0):.{digits}f}"


def diagnose(request: DiagnoseRequest, device: torch.device, on_try: Callable[[], None] = lambda: None) -> Diagnosis:
    """Says why two descriptor files differ. on_try: called for every variant that is tried.

    Raises UltronError if the files share no photo, or if photos, weights or whitening are needed and gone.
    """
    begun = time.monotonic()
    with DescriptorFile(request.ours) as ours:
        pairs, info = read_pairs(ours, request.reference), ours.info
    shown = shown_by_rows(pairs.ours, pairs.reference, pairs.ours_rows)
    is_same_dim = pairs.ours.shape[1] == shown.reference.shape[1]
    has_whitening = request.whitening is not None or info.extraction.whitening is not None
    cosines = np.einsum("nd,nd->n", pairs.ours, shown.reference) if is_same_dim else np.zeros(len(pairs.names))
    names, causes, notes = pairs.names, [], [*shown.notes, *_recorded_notes(info, pairs)]
    after, described = float(cosines.mean()), None
    if shown.cause is not None:
        causes, after = [shown.cause], shown.cause.cosine
    elif 1 - after > SAME and (is_same_dim or has_whitening):
        described = _Described.choose(request, info, pairs, shown, device)
        names, cosines = [pairs.names[place] for place in described.places], cosines[described.places]
        notes += described.note_of_change(request.ours, pairs.ours[described.places])
        search = CauseSearch(
            described.maker, shown.reference[described.places], described.recipe, described.means, on_try=on_try
        )
        recipe, causes = search.run()
        after = search.cosine(recipe)
    lowest = int(cosines.argmin())
    return Diagnosis(
        n=pairs.n,
        photos=tuple(names) if described else (),
        cosine=shown.misnamed.cosine_before if shown.misnamed else float(cosines.mean()),
        lowest=(names[lowest], float(cosines[lowest])),
        causes=(*([shown.misnamed] if shown.misnamed else []), *causes),
        cosine_after=after,
        notes=tuple(notes),
        not_shown=described.not_shown() if described else (),
        n_passes=described.maker.n_passes if described else 0,
        wall_s=time.monotonic() - begun,
    )


def _recorded_notes(info: DescriptorInfo, pairs: Pairs) -> list[str]:
    """What the reference's file itself says otherwise, where it is one of ultron."""
    if not pairs.recorded:
        return []
    ours, reference = info.extraction.stored, pairs.recorded.stored
    of_photos = ("photos_sha256", "role", "dataset")
    keys = [
        key for key in (*ours, *(key for key in reference if key not in ours)) if ours.get(key) != reference.get(key)
    ]
    words = [EXTRACTION_WORDS.get(key, key) for key in keys if key not in of_photos]
    return [f"the reference's file says otherwise of: {', '.join(words)}"] if words else []


@dataclass(frozen=True, kw_only=True)
class _Described:
    """Photos of both files, and the network that described ours."""

    maker: Maker
    recipe: Recipe  # of ours
    means: Means
    places: np.ndarray  # (n,) of the photos, among the pairs

    @classmethod
    def choose(
        cls, request: DiagnoseRequest, info: DescriptorInfo, pairs: Pairs, shown: RowsShown, device: torch.device
    ) -> "_Described":
        """Photos that show much, and the network. Raises UltronError if they are gone."""
        config, loaded = _network(request, info)
        whitening = stored_whitening(info, request.whitening) if info.extraction.whitening else request.whitening
        model = loaded.model.to(device).eval()
        recipe = recipe_of(config, model, is_whitened=info.extraction.whitening is not None)
        dataset = (
            open_dataset(str(request.dataset), Path(), request.gnd)
            if request.dataset
            else open_recorded(
                info.provenance.dataset_folder, str(request.gnd) if request.gnd else info.provenance.ground_truth
            )
        )
        places, photos = chosen_photos(dataset, pairs.names, recipe, request.n_photos, model.min_side_px)
        maker = Maker(model, photos, device, whitening, config.precision)
        network = model.per_scale
        may_be_negative = not (isinstance(network, GemModel) and maker.may_pool and network.whitening is None)
        means = Means(
            may_pool=maker.may_pool,
            exponent=maker.exponent,
            has_whitening=whitening is not None,
            may_be_negative=may_be_negative,
        )
        return cls(maker=maker, recipe=recipe, means=means, places=places)

    def note_of_change(self, path: Path, stored: np.ndarray) -> list[str]:
        """Whether the photos give other descriptors today than those that are stored of them, (n, D)."""
        again = self.maker.rows(self.recipe, range(len(stored)))
        agreement = cosine(again, stored) if again.shape == stored.shape else 0.0
        if 1 - agreement <= AGAIN:
            return []
        return [
            f"{path} is not what its photos give today (cosine {cosine_text(agreement)}): photos or programs are "
            "others by now; extract again"
        ]

    def not_shown(self) -> tuple[str, ...]:
        """Settings of which every value gives these photos the same pixels."""
        return tuple(
            setting.words
            for setting in SETTINGS
            if setting.key in OF_PIXELS
            if all(
                self.maker.has_same_pixels(recipe, self.recipe) for recipe in setting.variants(self.recipe, self.means)
            )
        )


def _network(request: DiagnoseRequest, info: DescriptorInfo) -> tuple[ExtractConfig, LoadedModel]:
    """How ours were described, and the network. Raises UltronError if the file does not say it, or the weights are
    gone."""
    extraction = info.extraction
    if extraction.model_name is None:
        raise UltronError(
            f"{request.ours} does not say which network made it, and the descriptors alone do not explain it; hold a "
            "file of `ultron extract` against the reference"
        )
    source = dict(info.provenance.weights.stored) if info.provenance.weights else {}
    loaded = reload_model(dict(extraction.stored), source, info.weights_sha256, request.weights)
    config = ExtractConfig.of(extraction, scales=tuple(info.scales))
    if config.corruption is not None:
        raise UltronError(
            f"{request.ours} is of photos that were made worse on purpose; hold those of the photos against it"
        )
    return config, loaded


def recipe_of(config: ExtractConfig, model: RetrievalModel, *, is_whitened: bool) -> Recipe:
    """How `ultron extract` makes descriptors of this configuration."""
    preprocessing, network = model.preprocessing, model.per_scale
    join: Literal["mean", "gem", "max"] = "mean"
    if isinstance(network, GemModel) and network.settings.scale_gem:
        join = "gem"
    elif isinstance(network, SuperGlobalModel) and network.settings.scale_gem:
        join = "max"
    return Recipe(
        crop=config.crop,
        box_edges=config.box_edges or "rounded",
        max_side_px=config.max_side_px,
        resize=config.resize,
        interpolation=photo_shape(config, model).interpolation,
        colours=(tuple(preprocessing.mean), tuple(preprocessing.sd)),
        scaling=preprocessing.scaling,
        scales=config.scales,
        join=join,
        whitening="after joining" if is_whitened else "none",
    )


def chosen_photos(
    dataset: Dataset, names: list[str], recipe: Recipe, n_photos: int, min_side_px: int
) -> tuple[np.ndarray, list[Photo]]:
    """(places among the names, photos): those first that show most, as photos that are turned by a tag, edges of boxes
    between pixels, sides that rounding changes.

    Photos that cannot be read are left out, which is said. Raises UltronError if none is left.
    """
    spread = np.unique(np.linspace(0, len(names) - 1, min(len(names), MOST_CANDIDATES)).round().astype(int))
    candidates: list[tuple[int, Photo, set[str]]] = []
    bad: list[str] = []
    reason = UltronError(
        f"{dataset.folder} must hold the photos and has none of them; name their folder with `dataset`"
    )
    query_names = set(dataset.query_names)
    for place in spread.tolist():
        name = names[place]
        try:
            box = dataset.query(name).bbx if name in query_names and recipe.crop == "bbx" else None
            photo = Photo(name, dataset.photo_path(name, suggest=False), box)
            candidates.append((place, photo, _what_it_shows(photo, recipe, min_side_px)))
        except UltronError as error:
            bad.append(name)
            reason = error
    if not candidates:
        raise reason
    if bad:
        log.warning("left out %s that could not be read: %s", counted(len(bad), "photo"), named(bad))
    taken: list[tuple[int, Photo, set[str]]] = []
    times_shown: dict[str, int] = {}
    # Evenly over the file among photos that show as much.
    order = [candidates[i] for i in np.argsort([(i * 7919) % 104729 for i in range(len(candidates))])]
    while order and len(taken) < n_photos:
        best = max(order, key=lambda entry: sum(2.0 ** -times_shown.get(part, 0) for part in entry[2]))
        order.remove(best)
        taken.append(best)
        for part in best[2]:
            times_shown[part] = times_shown.get(part, 0) + 1
    return np.array([place for place, _, _ in taken]), [photo for _, photo, _ in taken]


def _what_it_shows(photo: Photo, recipe: Recipe, min_side_px: int) -> set[str]:
    """The settings whose values this photo tells apart, by its header. Raises UltronError if it cannot be read."""
    with open_photo(photo.path) as header:
        size, is_turned = header.size, header.orientation != 1
    shows = {"upright" if size[1] > size[0] else "wide"}
    if is_turned:
        shows.add("tag")
    if photo.box is not None:
        shows.add("box")
        x1, y1, x2, y2 = photo.box
        if any(round(edge) != int(edge) for edge in photo.box):
            shows.add("edges")
        size = max(1, round(x2) - round(x1)), max(1, round(y2) - round(y1))
    target = target_size(size, size, recipe, min_side_px)
    shows.add("shrinks" if target != size else "stays")
    for rounding in ("down", "up"):
        if target_size(size, size, replace(recipe, rounding=rounding), min_side_px) != target:
            shows.add(rounding)
    return shows
