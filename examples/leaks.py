"""How many planted copies does `ultron datasets leaks` find among rendered photos, and how many does imagededup?

    python examples/leaks.py prepare --toy toy --out leaks [--network WEIGHTS.pth]
    python examples/leaks.py score --out leaks
    python examples/leaks.py imagededup --out leaks     # with a Python that has imagededup

Of 2,000 rendered photos those of each landmark's first five stand in training, the others in the test set, so that
nearly every test photo has its landmark there too. 100 training photos are copied into the test set: cut, recompressed,
blurred, mirrored, framed, turned by 20 degrees. A pair is right if it is planted.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

N_PHOTOS, N_COPIES, N_TRAINING = 2000, 100, 5
CHANGES = ("crop", "jpeg", "blur", "mirrored", "border", "turned")


def changed(photo: Image.Image, change: str) -> tuple[Image.Image, int]:
    """(the copy, its JPEG quality)."""
    width, height = photo.size
    if change == "crop":
        return photo.crop((width // 8, height // 10, width - width // 10, height - height // 8)), 92
    if change == "jpeg":
        return photo, 20
    if change == "blur":
        return photo.filter(ImageFilter.GaussianBlur(1.5)), 92
    if change == "mirrored":
        return ImageOps.mirror(photo), 92
    if change == "border":
        return ImageOps.expand(photo, width // 8, (240, 240, 235)), 92
    return photo.rotate(20, Image.Resampling.BICUBIC, expand=True), 92


def plant(toy: Path, out: Path) -> None:
    """Training and test photos in two folders, and planted.json: copy -> the photo it is of."""
    photos = [*sorted((toy / "train").glob("*/*.jpg")), *sorted((toy / "jpg").glob("*.jpg"))][:N_PHOTOS]
    names = {side: [] for side in ("train", "test")}
    for photo in photos:
        side = "train" if int(photo.stem.rpartition("_")[2]) < N_TRAINING else "test"
        names[side].append(photo)
        target = out / side / photo.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photo.read_bytes())
    copied_rows = np.random.default_rng(0).permutation(len(names["train"]))[:N_COPIES]
    planted = {}
    for i, row in enumerate(copied_rows.tolist()):
        change = CHANGES[i % len(CHANGES)]
        with Image.open(names["train"][row]) as photo:
            copy, quality = changed(photo.convert("RGB"), change)
        copy.save(out / "test" / f"copy-{i:03}-{change}.jpg", quality=quality)
        planted[f"copy-{i:03}-{change}.jpg"] = names["train"][row].name
    (out / "planted.json").write_text(json.dumps(planted))


def scored(pairs: set[tuple[str, str]], planted: dict[str, str], what: str) -> str:
    """Recall and precision of (test photo, training photo) pairs, and which changes were missed."""
    right = {(copy, source) for copy, source in planted.items() if (copy, source) in pairs}
    missed = Counter(
        copy.rpartition("-")[2].removesuffix(".jpg") for copy in set(planted) - {copy for copy, _ in right}
    )
    precision = len(right) / max(1, len(pairs))
    return (
        f"| {what} | {len(right) / len(planted):.2f} | {precision:.2f} | {len(pairs)} | "
        f"{', '.join(f'{n} {change}' for change, n in sorted(missed.items())) or 'none'} |"
    )


def base_name(name: str) -> str:
    return name.rpartition("/")[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "score", "imagededup"))
    parser.add_argument("--toy", type=Path, default=Path("toy"), help="a folder of `ultron datasets make-toy`")
    parser.add_argument("--out", type=Path, default=Path("leaks"))
    arguments = parser.parse_args()
    out = arguments.out
    if arguments.step == "prepare":
        plant(arguments.toy, out)
        return 0
    planted = json.loads((out / "planted.json").read_text())
    if arguments.step == "score":
        leaks = json.loads((out / "leaks.json").read_text())["leaks"]
        pairs = {
            (base_name(leak["first"]), base_name(leak["second"])) for leak in leaks if leak["kind"].endswith("copy")
        }
        print(scored(pairs, planted, "`ultron datasets leaks`"))
        print(dict(Counter(leak["kind"] for leak in leaks)))
        return 0
    from imagededup.methods import DHash, PHash  # in an environment of its own

    for method, distances in ((PHash(verbose=False), (4, 10, 14)), (DHash(verbose=False), (10,))):
        started_s = time.perf_counter()
        hashes = {
            f"{side}/{path.name}": method.encode_image(str(path))
            for side in ("train", "test")
            for path in sorted((out / side).glob("*.jpg"))
        }
        for distance in distances:
            groups = method.find_duplicates(encoding_map=hashes, max_distance_threshold=distance)
            pairs = {
                (base_name(name), base_name(other))
                for name, others in groups.items()
                for other in others
                if name.startswith("test/") and other.startswith("train/")
            }
            print(scored(pairs, planted, f"imagededup, {type(method).__name__} at {distance}"))
        print(f"{time.perf_counter() - started_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
