"""Extraction from photo files by every runtime that is installed, in photos per second, against its limits: the network
alone on photos in memory, and reading photos alone.

    python benchmarks/extract.py [--photos DIR] [--backbone tf_efficientnet_lite0] [--max-side 640] [--scales 3]

All rows are timed in one run, in turns, by two processes: one whose freed memory goes back to the system, as before
ultron kept it, and one that keeps it. Without --photos, landmarks are rendered at the size asked for. On processors
that have units for bfloat16, runtimes that take it are timed in it too.

Before anything is timed, descriptors of torch must be equal within 1e-5 to those of the bare network, and those of
every other runtime have a cosine of at least 0.99999 with torch's, in bfloat16 one of 0.999; one that has not is said
and left out. A share is that of the slower of a row's two limits.
"""

import argparse
import os
import sys

from ultron_cli.allocator import keep_memory
from ultron_cli.machine import share_cores

if __name__ == "__main__":  # before torch, as the command does
    share_cores()
if "--gives-back" not in sys.argv:
    keep_memory()

import contextlib
import json
import math
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rows import add_save, save
from ultron_kernels import scaling

from ultron_cli import console
from ultron_cli.configs import parse_scales
from ultron_cli.datasets.folder import open_dataset
from ultron_cli.datasets.photos import LoadedPhoto, PhotoReader, batches_by_shape
from ultron_cli.datasets.toy import ToyConfig, make_toy
from ultron_cli.errors import UltronError
from ultron_cli.machine import bfloat16_units, cpu_flags, cpu_name, n_cores, n_threads, peak_mib
from ultron_cli.measurements import Measurement
from ultron_cli.models.core import PRECISIONS
from ultron_cli.models.runtimes import RUNTIMES, Precision, RuntimeName, Threads
from ultron_cli.models.weights.model_choice import ModelChoice
from ultron_cli.provenance import package_versions
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extraction_config
from ultron_cli.retrieval.extraction.described import DescriptorExtraction
from ultron_cli.retrieval.extraction.files import extract_file
from ultron_cli.retrieval.extraction.runtime_choice import LEAST_COSINES, ChosenRuntime, open_runtime
from ultron_cli.retrieval.extraction.scales import at_scale
from ultron_cli.retrieval.extraction.shards import ExtractWork
from ultron_cli.retrieval.extraction.streams import described_by_photo

MINIMUM_SHARE = 0.9
# Photos whose images of every scale are held for the networks alone, 13 MB each at 640 px; these go round.
MOST_HELD = 48
GIVES_BACK = "torch, memory given back"
READING = "reading photos alone"
ALONE = ", network alone"
IN_BFLOAT16 = " in bfloat16"  # at the end of a row's name


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--max-side", type=int, default=640)
    parser.add_argument("--scales", default="1", help="1, 3, 5 or numbers with commas (default: %(default)s)")
    parser.add_argument("--n-photos", type=int, default=48, help="of rendered photos")
    parser.add_argument("--batch-size", type=int, default=8, help="of torch")
    parser.add_argument("--workers", type=int, help="decoding processes (default: as the command)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="rows with one of these words")
    add_save(parser)
    parser.add_argument("--gives-back", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


class Rows:
    """What one process times: rows by name."""

    def __init__(self, arguments: argparse.Namespace, temporary: Path) -> None:
        dataset = open_dataset(str(arguments.photos), temporary)
        scaling.is_ready(worth_building=True)
        self.loaded = ModelChoice(untrained=True, model="gem", settings={"backbone": arguments.backbone}).load()
        self.work = ExtractWork(
            device=torch.device("cpu"), batch_size=arguments.batch_size, n_workers=arguments.workers, overwrite=True
        )
        self.names = dataset.database_names
        self.extractions: dict[Precision, DescriptorExtraction] = {}
        for precision in ("float32", "bfloat16") if bfloat16_units(cpu_flags()) else ("float32",):
            request = ExtractRequest(
                dataset=str(arguments.photos),
                scales=parse_scales(arguments.scales),
                max_side_px=arguments.max_side,
                precision=precision,
            )
            config = extraction_config(request, dataset, "database", self.names, self.loaded)
            self.extractions[precision] = DescriptorExtraction(dataset, self.names, self.loaded, config, self.work)
        self.extraction = self.extractions["float32"]
        paths = [dataset.photo_path(name) for name in self.names]
        self.reader = PhotoReader(list(range(len(paths))), paths, [None] * len(paths), self.extraction.shape)
        self.out = temporary / f"database-{os.getpid()}.h5"
        self.of_name: dict[str, Callable[[], object]] = {}  # an int that is returned: photos, if not all
        self.cosines: dict[str, float] = {}
        self.runtimes: dict[tuple[str, str], ChosenRuntime] = {}
        if arguments.gives_back:
            self.of_name[GIVES_BACK] = self.extract
            self.extract()
            return
        self.photos = [self.reader[i] for i in range(len(paths))]
        self.of_name["torch"] = self.extract
        self.n_turns = math.ceil(len(self.photos) / MOST_HELD)
        self.held = self.photos[:: self.n_turns]
        self.of_name["torch" + ALONE] = self.torch_alone
        self.of_name[READING] = self.read
        self.expected = self.extract()
        alone = self.torch_described(self.batches(self.photos), "float32")
        difference = float(np.abs(self.expected - alone).max())
        if difference > 1e-5:
            raise SystemExit(f"descriptors differ by {difference} from the bare network's: nothing is timed")
        others: list[RuntimeName] = [
            name for name, entry in RUNTIMES.items() if entry.is_per_photo and entry.is_installed
        ]
        for name in others:
            self.add(name, "float32")
        if "bfloat16" in self.extractions:
            for name in ("torch", *(name for name in others if name in self.of_name)):
                self.add(name, "bfloat16")

    def add(self, name: RuntimeName, precision: Precision) -> None:
        """The rows of a runtime that takes the network in a precision and agrees with torch; else says why not."""
        row = name + (IN_BFLOAT16 if precision == "bfloat16" else "")
        try:
            cosine = float((self.expected * self.extract(name, precision)).sum(axis=1).min())
        except UltronError as error:
            print(f"{row} is left out: {error.message}", file=sys.stderr)
            return
        if not cosine >= LEAST_COSINES[precision]:
            print(f"{row} does not agree with torch (cosine {cosine}) and is left out", file=sys.stderr)
            return
        self.cosines[row] = cosine
        self.of_name[row] = partial(self.extract, name, precision)
        alone = partial(self.torch_alone, precision) if name == "torch" else partial(self.alone, name, precision)
        self.of_name[row + ALONE] = alone
        alone()

    def extract(self, name: RuntimeName = "torch", precision: Precision = "float32") -> np.ndarray:
        """As `ultron extract` does it, to the file and back."""
        extraction = self.extractions[precision]
        extraction.use(self.runtime(name, precision))
        with DescriptorFile(extract_file(extraction, self.out).path) as stored:
            return stored.read()

    def runtime(self, name: RuntimeName, precision: Precision) -> ChosenRuntime:
        if (name, precision) not in self.runtimes:
            config = self.extractions[precision].config
            self.runtimes[name, precision] = open_runtime(name, self.loaded, config, self.work.device)
        return self.runtimes[name, precision]

    def images(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Of every scale, as the network takes them."""
        model = self.loaded.model
        return [
            at_scale(pixels, scale, model.preprocessing, model.min_side_px, is_planar=True)
            for scale in self.extraction.config.scales
        ]

    def batches(self, photos: list[LoadedPhoto]) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
        """Rows and images of every scale, of photos that torch takes together."""
        for batch in batches_by_shape(photos, 8, 64):
            yield [photo.row for photo in batch], self.images(torch.stack([photo.pixels for photo in batch]))

    @cached_property
    def held_batches(self) -> list[tuple[list[int], list[torch.Tensor]]]:
        return list(self.batches(self.held))

    def torch_alone(self, precision: Precision = "float32") -> int:
        """The network on batches in memory, brought to their scales before."""
        for _ in range(self.n_turns):
            self.torch_described(self.held_batches, precision)
        return self.n_turns * len(self.held)

    def torch_described(
        self, batches: Iterable[tuple[list[int], list[torch.Tensor]]], precision: Precision
    ) -> np.ndarray:
        """(photos, D) descriptors, in which the rows of the batches are filled."""
        network = self.runtime("torch", precision).network
        descriptors = np.empty((len(self.names), self.loaded.model.descriptor_dim), np.float32)
        uses_autocast = precision != "float32"
        with torch.inference_mode(), torch.autocast("cpu", dtype=PRECISIONS[precision], enabled=uses_autocast):
            for rows, images_of_scales in batches:
                of_scales = torch.stack([network(images).float() for images in images_of_scales])
                joined = self.loaded.model.join_scales(of_scales) if len(of_scales) > 1 else of_scales[0]
                descriptors[rows] = F.normalize(joined, dim=1).numpy()
        return descriptors

    @cached_property
    def images_of_held(self) -> dict[int, list[torch.Tensor]]:
        """Row -> images of every scale."""
        return {photo.row: self.images(photo.pixels[None]) for photo in self.held}

    def alone(self, name: RuntimeName, precision: Precision) -> int:
        """The runtime's own time: on photos in memory, as many at once as the extraction has."""
        network = self.runtime(name, precision).network
        images_of_held = self.images_of_held

        def describe(batch: list[LoadedPhoto]) -> np.ndarray:
            return np.stack([network(images).numpy() for images in images_of_held[batch[0].row]])

        readers = (partial(self.held.__getitem__, i) for _ in range(self.n_turns) for i in range(len(self.held)))
        for _ in described_by_photo(readers, describe, Threads(n_at_once=n_threads())):
            pass
        return self.n_turns * len(self.held)

    def read(self) -> None:
        """Decoding and sizing, on all threads."""
        nothing = np.empty((1, 0))
        readers = (partial(self.reader.__getitem__, i) for i in range(len(self.names)))
        for _ in described_by_photo(readers, lambda batch: nothing, Threads(n_at_once=n_threads())):
            pass


def work(arguments: argparse.Namespace, temporary: Path) -> None:
    """A process: says its rows, then times those that are named on stdin, one JSON line each."""
    rows = Rows(arguments, temporary)
    shapes = sorted({tuple(rows.reader[i].pixels.shape[:2]) for i in range(min(8, len(rows.names)))})
    print(json.dumps({"rows": list(rows.of_name), "cosines": rows.cosines, "n": len(rows.names), "shapes": shapes}))
    sys.stdout.flush()
    for line in sys.stdin:
        before, started_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        done = rows.of_name[line.strip()]()
        seconds, after = time.perf_counter() - started_s, resource.getrusage(resource.RUSAGE_SELF)
        of_all = len(rows.names) / done if isinstance(done, int) else 1.0
        figures = {
            "seconds": of_all * seconds,
            "user_s": of_all * (after.ru_utime - before.ru_utime),
            "system_s": of_all * (after.ru_stime - before.ru_stime),
            "faults": of_all * (after.ru_minflt - before.ru_minflt),
            "peak_mib": peak_mib(),
        }
        print(json.dumps(figures), flush=True)


class Worker:
    """One of the two processes."""

    def __init__(self, photos: Path, *flags: str) -> None:
        command = [sys.executable, __file__, *sys.argv[1:], "--photos", str(photos), "--worker", *flags]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a process ended")
        return json.loads(line)

    def time(self, row: str) -> dict:
        self.process.stdin.write(row + "\n")
        self.process.stdin.flush()
        return self.answer()


def main() -> int:
    arguments = parse()
    console.start_log(-1)
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder)
        if arguments.worker:
            work(arguments, temporary)
            return 0
        photos = arguments.photos
        if photos is None:
            photos = temporary / "toy"
            config = ToyConfig(
                n_train_landmarks=0,
                n_eval_landmarks=1,
                n_distractors=arguments.n_photos - 10,
                max_side_px=arguments.max_side,
            )
            make_toy(photos, config, workers=n_cores())
        words = [*arguments.only, READING]
        workers = [Worker(photos, "--gives-back")] if any(word in GIVES_BACK for word in words) else []
        workers.append(Worker(photos))
        timed = [[row for row in worker.about["rows"] if any(word in row for word in words)] for worker in workers]
        figures: dict[str, list[dict]] = {row: [] for rows in timed for row in rows}
        for _ in range(arguments.rounds):
            for worker, rows in zip(workers, timed, strict=True):
                for row in rows:
                    figures[row].append(worker.time(row))
        for worker in workers:
            worker.process.stdin.close()
            worker.process.wait()
    report(arguments, workers[-1].about, figures)
    save(arguments.save, __file__, measurements(arguments, workers[-1].about, figures))
    shares = [share(row, figures) for row in figures if row + ALONE in figures]
    return 0 if min(shares) >= MINIMUM_SHARE else 1


def share(row: str, figures: dict[str, list[dict]]) -> float:
    """Of the slower of a row's two limits, the median of the rounds' ratios."""
    limits = zip(figures[row + ALONE], figures[READING], figures[row], strict=True)
    return statistics.median(max(a["seconds"], r["seconds"]) / alone["seconds"] for a, r, alone in limits)


def measurements(arguments: argparse.Namespace, about: dict, figures: dict[str, list[dict]]) -> dict[str, Measurement]:
    """Each runtime's extraction, beside its limits and torch as it was; in bfloat16, beside itself in float32."""
    rates = {row: [about["n"] / part["seconds"] for part in rounds] for row, rounds in figures.items()}
    rows = {}
    for row in figures:
        if row + ALONE not in figures:
            continue
        in_bfloat16 = row.endswith(IN_BFLOAT16)
        precision = "bfloat16" if in_bfloat16 else "float32"
        beside, cosine = row.removesuffix(IN_BFLOAT16), about["cosines"].get(row, 1.0)
        others = {f"{beside} in float32": rates.get(beside)} if in_bfloat16 else {GIVES_BACK: rates.get(GIVES_BACK)}
        rows[f"extraction, {arguments.backbone}, {row}"] = Measurement.of_rounds(
            rates[row],
            unit="photos/s",
            of=f"{about['n']} JPEG photos of {arguments.max_side} px, scales {arguments.scales}, {precision}",
            note=f"{statistics.median(part['faults'] for part in figures[row]) / about['n']:,.0f} faults per photo",
            others={name: other for name, other in others.items() if other is not None},
            limits={f"network alone{IN_BFLOAT16 * in_bfloat16}": rates[row + ALONE], READING: rates[READING]},
            equality=f"least cosine with torch's{' float32' * in_bfloat16} descriptors {cosine:.8f}",
        )
    return rows


def report(arguments: argparse.Namespace, about: dict, figures: dict[str, list[dict]]) -> None:
    versions = package_versions()
    packages = ", ".join(
        f"{name} {versions[name]}" for name in ("torch", "timm", *about["cosines"]) if name in versions
    )
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"
    print(f"{cpu_name()}, {n_cores()} cores, {n_threads()} threads, load {load} at the end; {packages}")
    print(
        f"{arguments.backbone}, {about['n']} photos such as {about['shapes']}, scales {arguments.scales}, float32 if "
        f"nothing else is said; per photo: medians of {arguments.rounds} rounds"
    )
    print(f"{'':<38}{'photos/s':>9}{'(from':>8}{'to)':>7}{'user ms':>9}{'system ms':>10}{'faults':>9}{'peak MiB':>10}")
    for row, rounds in figures.items():
        rates = [about["n"] / part["seconds"] for part in rounds]
        per_photo = [
            statistics.median(part[key] for part in rounds) / about["n"] for key in ("user_s", "system_s", "faults")
        ]
        print(
            f"{row:<38}{statistics.median(rates):>9.2f}{min(rates):>8.2f}{max(rates):>7.2f}{1000 * per_photo[0]:>9.1f}"
            f"{1000 * per_photo[1]:>10.1f}{per_photo[2]:>9,.0f}{max(part['peak_mib'] for part in rounds):>10,.0f}"
        )
    for row in figures:
        if row + ALONE in figures:
            cosine = (
                f", least cosine with torch's descriptors {about['cosines'][row]:.8f}"
                if row in about["cosines"]
                else ""
            )
            print(f"{row}: share {share(row, figures):.3f} of its limit (at least {MINIMUM_SHARE} wanted){cosine}")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
