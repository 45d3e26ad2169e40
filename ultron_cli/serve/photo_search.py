"""The search behind `ultron serve`: a database and the model that made it, opened once. Photos from anywhere are
searched in it.

Whatever computes runs in one thread, one request after the other. Whatever a caller sends is checked here, in limits.py
or in routes.py. What the caller is told names no path of this machine: paths go to the log.
"""

import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image

from ultron_cli import __version__
from ultron_cli.console import log
from ultron_cli.datasets.folder import Dataset, open_recorded
from ultron_cli.datasets.photo_files import decode_photo, photo_size
from ultron_cli.datasets.photo_marks import State, state_of
from ultron_cli.datasets.photos import BOX_SLACK_PX, PhotoShape, PlacedPixels, load_placed
from ultron_cli.datasets.protocols import LABELS, Box
from ultron_cli.errors import UltronError
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.verification import VerifiableQuery, VerifySettings
from ultron_cli.machine import resolve_device
from ultron_cli.memory import OverBudget
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.local_features.detection import Detection
from ultron_cli.retrieval.local_features.opened import LocalPhotos, verifiable_like
from ultron_cli.retrieval.local_features.source import LocalSource, database_files
from ultron_cli.retrieval.origin import DescriptorProvenance, Origin, SearchRecord
from ultron_cli.retrieval.photo_queries import describer_of
from ultron_cli.retrieval.rankings import RankedRows, Ranking
from ultron_cli.retrieval.rerank import RERANKERS, Step, needs_local_features, parse_rerank
from ultron_cli.retrieval.rerank.geometry import GeometryConfig
from ultron_cli.retrieval.searching import PLAIN, Searcher, SearchOptions, open_index_of, whitening_for
from ultron_cli.retrieval.whitening import open_descriptors, stored_whitening, whitening_text
from ultron_cli.serve.connections import FairQueue
from ultron_cli.serve.limits import (
    DAMAGED,
    FORMATS,
    MOST_PHOTOS,
    Kind,
    Refused,
    ServeConfig,
    SoughtPhoto,
    Upload,
    decode_upload,
)
from ultron_cli.visualization.cam.method_table import map_method
from ultron_cli.visualization.cam.similarity import similarity_cam
from ultron_cli.visualization.pair_geometry import PairGeometry
from ultron_cli.visualization.report.inliers import packed_inliers
from ultron_cli.visualization.report.maps import packed_map
from ultron_cli.visualization.report.similarity_maps import small_map

MOST_STEPS = 4  # of re-ranking
MOST_DETECTED_PIXELS = 6_000_000  # a second or two of SIFT
MOST_CHAINS = 32  # of steps that are kept
OF_DESCRIPTORS = [name for name, step in RERANKERS.items() if not step.needs_local_features]
MOST_VIEWS = 256  # searches whose maps and inliers can still be asked for; 120 kB each
MOST_WAITING = 100  # searches and maps
SIDES_PX = {"small": 240, "large": 900}
MOST_SMALL_PHOTOS = 4096  # kept encoded, about 10 kB each

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What is kept of a search for the pictures of its photos."""

    descriptor: np.ndarray  # (D,) at scale 1, for similarity maps
    features: LocalFeatures | None = None  # of the photo or its box, where the search looked at them
    settings: VerifySettings | None = None  # by which photos were verified
    box: Box | None = None  # of the photo


class PhotoSearch:
    """A database open for searching. Use as a context manager.

    database: None takes the descriptors that the index was made from.
    Raises UltronError if anything is missing, or files differ in model, whitening or photos.
    """

    def __init__(
        self,
        database: Path | None,
        config: ServeConfig,
        *,
        weights: Path | None = None,
        options: SearchOptions = PLAIN,
        device: str = "auto",
    ) -> None:
        self.config = config
        self.session = secrets.token_urlsafe(6)
        index = open_index_of(options)
        whitening = whitening_for(index, options)
        database = database or (index.descriptor_path if index else None)
        if database is None:
            raise UltronError("nothing to search in; name `database` or `index`")
        with DescriptorFile(database) as raw:
            stored = stored_whitening(raw.info, whitening)
        self.whitening = stored or whitening
        self.file = open_descriptors(database, None if stored else whitening)
        target = resolve_device(device)
        try:
            self.info = self.file.info
            self.names = self.file.names
            self._marks = self.file.marks
            if index and index.names != self.names:
                raise UltronError(
                    f"index {index.path} holds other photos than {database}; name the `database` that it was made from"
                )
            self.searcher = Searcher(self.file, index, str(target))
            self.dataset = photos_of(self.info.provenance)
            self.describer = describer_of(self.info, target, crop="bbx", weights_path=weights)
            self._open_local_features()
        except UltronError:
            self.file.close()
            raise
        # Similarity maps are of one scale.
        self.map_describer = replace(self.describer, config=replace(self.describer.config, scales=(1.0,)))
        self._views: OrderedDict[str, View] = OrderedDict()  # by search
        self._steps = lru_cache(MOST_CHAINS)(parse_rerank)  # a step may hold a network
        self.queue = FairQueue(MOST_WAITING)
        self._decoders = threading.BoundedSemaphore(2)
        self._small = lru_cache(MOST_SMALL_PHOTOS)(self._encoded)
        # OpenMP keeps a pool of threads for every thread that computes, so there is one.
        self._worker = ThreadPoolExecutor(1, "search")
        try:
            # A first search now, so that whatever is wrong is said at the start, and chance pairs are verified.
            stripes = np.full((64, 64, 3), np.arange(64, dtype=np.uint8)[:, None])
            steps = self.config.steps if needs_local_features(self.config.steps) else PLAIN.steps
            placed = PlacedPixels(pixels=stripes, left_top=(0, 0), part_size=(64, 64), photo_size=(64, 64))
            features = self._worker.submit(self._detection.place, placed).result() if self._detection else None
            self._worker.submit(self._ranked, stripes, 1, steps, features).result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Refuses whoever waits, waits for what is being computed and closes the files."""
        self.queue.close()
        self._worker.shutdown(wait=True, cancel_futures=True)
        if self._local_photos is not None:
            self._local_photos.close()
        self.file.close()

    def _open_local_features(self) -> None:
        """The database's local features, and how those of photos are found; none where they are absent or cannot be
        used, and no re-ranking by default needs them."""
        self._local_photos: LocalPhotos | None = None
        self._detection: Detection | None = None
        files = database_files(self.file)
        is_needed = needs_local_features(self.config.steps)
        if not is_needed and not all(path.exists() for path in files):
            return
        try:
            photos = LocalPhotos(files, self.file, "geometry")
        except UltronError as error:
            if is_needed:
                raise
            log.warning("re-ranking by geometry is not offered: %s", error)
            return
        try:
            self._detection = Detection.like(photos.files[0])
            self._local_photos = photos
        except UltronError as error:
            photos.close()
            if is_needed:
                raise
            log.warning("re-ranking by geometry is not offered: %s", error)

    @property
    def rerankers(self) -> list[str]:
        """The steps that anybody may ask for."""
        return [*OF_DESCRIPTORS, *(["geometry"] if self._local_photos is not None else [])]

    def __enter__(self) -> "PhotoSearch":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _compute(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in the one thread that computes. Raises Refused for what it cannot do."""
        try:
            future = self._worker.submit(work, *args, **kwargs)
        except RuntimeError:  # shut down
            raise Refused(503, "the server is stopping") from None
        try:
            return future.result()
        except CancelledError:
            raise Refused(503, "the server is stopping") from None

    def about(self) -> dict[str, object]:
        """What is searched, and within which limits."""
        return {
            "ultron_version": __version__,
            "session": self.session,
            "dataset": self.info.dataset,
            "model": self.info.model,
            "n_photos": len(self.names),
            "n_queries": len(self.dataset.query_names),
            "search": self.searcher.index.kind,
            "dim": self.file.dim,
            "whitening": whitening_text(self.info.extraction),
            "scales": list(self.info.scales),
            "max_side_px": self.describer.config.max_side_px,
            "k": self.config.k,
            "most_photos": min(MOST_PHOTOS, len(self.names)),
            "rerank": self.config.rerank,
            "rerankers": self.rerankers,
            "maps": find_spec("pytorch_grad_cam") is not None,
            "method": map_method(self.config.method).title,
            "limits": {
                "upload_bytes": self.config.max_upload_bytes,
                "pixels": int(self.config.max_megapixels * 1e6),
                "formats": list(FORMATS),
            },
        }

    def queries(self) -> list[dict[str, object]]:
        """The dataset's queries: row, name, and box (x1, y1, x2, y2) or null."""
        return [
            {"row": row, "name": name, "box": self.dataset.query(name).bbx}
            for row, name in enumerate(self.dataset.query_names)
        ]

    def path_of(self, kind: Kind, row: int) -> tuple[str, Path]:
        """(name, file) of a query or database photo. Raises Refused if there is no such row, or its photo is gone or
        outside the dataset."""
        names = self.dataset.query_names if kind == "query" else self.names
        if not names:
            raise Refused(404, f"there is no {kind}")
        if not 0 <= row < len(names):
            raise Refused(404, f"{kind} {row} does not exist; rows are 0 to {len(names) - 1}")
        name = names[row]
        parts = PurePosixPath(name), PureWindowsPath(name)
        if any(path.is_absolute() or path.drive or ".." in path.parts for path in parts):
            log.warning("%s %d is named %r, which leads out of its dataset: not shown", kind, row, name)
            raise Refused(404, f"{kind} {row} has a name that leads out of its dataset")
        try:
            path = self.dataset.photo_path(name)
        except UltronError as error:
            log.warning("%s", error)
            raise Refused(404, f"the photo of {kind} {row} is gone") from None
        if kind == "photo" and self._marks is not None and self._marks.of_rows(row, row + 1).changed([path]):
            log.warning(
                "%s has changed since it was described; run `ultron extract` again, and start the page anew", path
            )
            raise Refused(404, f"the photo of {kind} {row} is another one than was described")
        return name, path

    def stored(self, kind: Kind, row: int) -> SoughtPhoto:
        """A query or database photo to search for. Raises Refused as path_of, or if it cannot be read."""
        name, path = self.path_of(kind, row)
        try:
            width, height = photo_size(path)
        except UltronError as error:
            log.warning("%s", error)
            raise Refused(404, f"the photo of {kind} {row} cannot be read") from None
        return SoughtPhoto(kind=kind, file=path, width=width, height=height, row=row, name=name)

    def find(
        self, photo: SoughtPhoto, *, k: int | None = None, box: Box | None = None, rerank: str | None = None
    ) -> dict[str, object]:
        """The k best photos, as docs/serve.md says. box: of the upright photo, in pixels. rerank: steps, "" for none.
        Raises Refused."""
        most = min(MOST_PHOTOS, len(self.names))
        k = min(self.config.k, most) if k is None else k
        if not 1 <= k <= most:
            raise Refused(400, f"k must be 1 to {most}, found {k}")
        if box and (
            min(box[:2]) < -BOX_SLACK_PX or box[2] > photo.width + BOX_SLACK_PX or box[3] > photo.height + BOX_SLACK_PX
        ):
            raise Refused(
                400,
                f"box {[round(side, 1) for side in box]} reaches outside the photo of {photo.width} x "
                f"{photo.height} px",
            )
        text = self.config.rerank if rerank is None else rerank
        names = [name for name in text.split(",") if name]
        known = (*self.rerankers, *self.config.rerank.split(","))  # who asks names no code
        if len(names) > MOST_STEPS or any(name not in known for name in names):
            raise Refused(
                400,
                f"rerank takes up to {MOST_STEPS} of {', '.join(self.rerankers)}, joined by commas; found "
                f"{text[:80]!r}",
            )
        short_names = [name.rpartition(":")[2] for name in names]
        settings = [setting for setting in self.config.rerank_set if setting.partition(".")[0] in short_names]
        steps = self._steps(",".join(names) or None, tuple(settings))
        return self._compute(self._find, photo, k, box, steps)

    def _find(self, photo: SoughtPhoto, k: int, box: Box | None, steps: Sequence[Step]) -> dict[str, object]:
        pixels = self._pixels(photo, box, self.describer.shape).pixels
        features = None
        if needs_local_features(steps) and self._detection is not None:
            self._require_detectable(photo, box)
            features = self._detection.place(self._pixels(photo, box, self._detection.shape))
        ranked, descriptor, record = self._ranked(pixels, k, steps, features)
        settings = [step.config.verification for step in steps if isinstance(step.config, GeometryConfig)]
        search_name = secrets.token_urlsafe(9)
        view = View(descriptor=descriptor, features=features, settings=settings[-1] if settings else None, box=box)
        self._views[search_name] = view
        while len(self._views) > MOST_VIEWS:
            self._views.popitem(last=False)
        labels = self._labels(photo.row) if photo.kind == "query" and photo.row is not None else None
        return {
            "search": search_name,
            "k": k,
            "method": record.engine,
            "rerank": [step.to_json() for step in record.steps],
            "query": {
                "kind": photo.kind,
                "row": photo.row,
                "name": photo.name,
                "width": photo.width,
                "height": photo.height,
                "box": box,
            },
            "photos": self._photos(ranked, record, labels),
        }

    def _photos(
        self, ranked: RankedRows, record: SearchRecord, labels: Mapping[str, str] | None
    ) -> list[dict[str, object]]:
        """The ranked photos of one query, as they are answered. labels: by name; None where there is no ground
        truth."""
        ranking = Ranking(
            query_names=[""],
            database_names=self.names,
            rows=ranked.rows,
            scores=ranked.scores,
            inliers=ranked.inliers,
            origin=Origin(search=record),
        )
        return [
            {**photo, "row": row, "label": None if labels is None else labels.get(photo["name"], "")}
            for row, photo in zip(ranked.rows[0].tolist(), ranking.ranked_photos(0), strict=False)
        ]

    def _require_detectable(self, photo: SoughtPhoto, box: Box | None) -> None:
        """Raises Refused for a photo in which local features would be looked for at a size that takes too long, where
        the database's were found in photos of any size."""
        assert self._detection is not None
        width, height = (photo.width, photo.height) if box is None else (box[2] - box[0], box[3] - box[1])
        if self._detection.shape.max_side_px is None and width * height > MOST_DETECTED_PIXELS:
            raise Refused(
                413,
                f"local features are looked for in at most {MOST_DETECTED_PIXELS / 1e6:g} million pixels, found "
                f"{width * height / 1e6:.1f}; draw a box, or switch re-ranking off",
            )

    def _pixels(self, photo: SoughtPhoto, box: Box | None, shape: PhotoShape) -> PlacedPixels:
        """The pixels of a photo to search for. Raises Refused."""
        if isinstance(photo.file, Upload):
            return decode_upload(photo.file, box, shape)
        try:
            return load_placed(photo.file, box, shape)
        except OverBudget as error:
            raise Refused(413, error.message) from None
        except UltronError as error:
            log.warning("%s", error)
            raise Refused(415, DAMAGED) from None

    def _ranked(
        self, pixels: np.ndarray, k: int, steps: Sequence[Step], features: LocalFeatures | None
    ) -> tuple[RankedRows, np.ndarray, SearchRecord]:
        """(ranking of one query, (D,) descriptor at scale 1, how). pixels: (H, W, 3) uint8. features: where the steps
        look at them. As `ultron search PHOTO` does it."""
        descriptor = self.describer.describe(pixels)
        is_single = self.describer.config.scales == (1.0,)
        map_descriptor = descriptor if is_single else self.map_describer.describe(pixels)
        queries = descriptor[None]
        local = None
        if features is not None:
            local = LocalSource.of_photos(["the photo"], lambda _: [features], self.file)
            local = local and replace(local, photos=self._local_photos)
        queries = self.whitening.apply(queries) if self.whitening else queries
        ranked, record = self.searcher.search(queries, k, steps, local)
        return ranked, map_descriptor, record

    def _labels(self, row: int) -> dict[str, str]:
        """Database name -> easy, hard or junk, for a query of the dataset."""
        truth = self.dataset.ground_truth
        assert truth is not None  # a query row exists only with a ground truth
        return {truth.database_names[i]: label for label in LABELS for i in getattr(truth.queries[row], label)}

    def heat(self, search: str, row: int) -> dict[str, object]:
        """The similarity map of a database photo for an earlier search: h, w, data (base64 of h x w bytes), cosine,
        flat. Raises Refused."""
        _, path = self.path_of("photo", row)
        return self._compute(self._heat, search, row, path)

    def _view(self, search: str) -> View:
        view = self._views.get(search)
        if view is None:
            raise Refused(410, f"that search is not among the latest {MOST_VIEWS}; search again")
        return view

    def inliers(self, search: str, row: int) -> dict[str, object]:
        """What verified a database photo of an earlier search: row, and a PackedInliers. Raises Refused."""
        self.path_of("photo", row)
        return self._compute(self._inliers, search, row)

    def _inliers(self, search: str, row: int) -> dict[str, object]:
        view = self._view(search)
        if view.features is None or view.settings is None or self._local_photos is None:
            raise Refused(400, "that search verified no photos; search with rerank=geometry")
        if self._local_photos.place_of(row)[1] < 0:
            raise Refused(404, f"photo {row} has no local features")
        query = VerifiableQuery.of(verifiable_like(self._local_photos.files[0], view.features))
        pair = PairGeometry.of(query, self._local_photos.photo(row), view.settings, view.box)
        return {"row": row, **packed_inliers(pair)}

    def _heat(self, search: str, row: int, path: Path) -> dict[str, object]:
        view = self._view(search)
        try:
            cam = similarity_cam(
                self.describer.model,
                self.describer.load(path, None),
                torch.from_numpy(view.descriptor),
                method=self.config.method,
            )
        except UltronError as error:
            log.warning("no map of photo %d: %s", row, error)
            raise Refused(422, f"photo {row} has no similarity map; the terminal of the server says why") from None
        return {"row": row, "cosine": cam.cosine, "flat": cam.flat, **packed_map(small_map(cam.heat))}

    def picture(self, kind: Kind, row: int, size: str) -> bytes:
        """A query or database photo as JPEG, upright and encoded anew, so that nothing but its pixels is sent. Raises
        Refused."""
        _, path = self.path_of(kind, row)
        with self._decoders:
            encode = self._small if size == "small" else self._encoded
            return encode(path, SIDES_PX[size], state_of(path))

    @staticmethod
    def _encoded(path: Path, side_px: int, state: State) -> bytes:
        """state: of the file; a small photo that is kept counts as long as its file is the same."""
        try:
            image = decode_photo(path, draft_side_px=side_px)
        except UltronError as error:
            log.warning("%s", error)
            raise Refused(404, "the photo cannot be read") from None
        image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=82)
        return buffer.getvalue()


def photos_of(provenance: DescriptorProvenance) -> Dataset:
    """The photos behind a database file. Raises UltronError if they are gone."""
    return open_recorded(provenance.dataset_folder, provenance.ground_truth)
