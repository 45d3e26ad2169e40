"""How many planted copies does `ultron datasets leaks` find among rendered photos, and how many does imagededup?

    python examples/leaks.py prepare --toy toy --out leaks
    ultron extract --dataset leaks/train ... --out leaks/train-described      # and leaks/test
    ultron datasets leaks leaks/train-described leaks/test-described --out leaks/leaks.json
    python examples/leaks.py score --toy toy --out leaks
    python examples/leaks.py imagededup --out leaks [--network WEIGHTS.pth]     # with a Python that has imagededup

Of 2,000 rendered photos those of each landmark's first five stand in training, the others in the test set, so that
nearly every test photo has its landmark there too. 100 training photos are copied into the test set: cut, recompressed,
blurred, mirrored, framed, turned by 20 degrees. A pair that is called a copy is right if it is planted; one that is
said to show one landmark is right if it does. --network: weights of timm's tf_efficientnet_lite0, for imagededup's CNN.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

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


def overlaps_scored(pairs: set[tuple[str, str]], toy: Path, planted: dict[str, str]) -> str:
    """Precision of (test photo, training photo) pairs that are said to show one landmark, and the share of those test
    photos of a landmark that training has which are in a right pair."""
    photos = json.loads((toy / "toy.json").read_text())["photos"]
    landmark = {base_name(photo["file"]): photo["landmark"] for photo in photos}
    landmark |= {copy: landmark[source] for copy, source in planted.items()}
    right = {pair for pair in pairs if landmark[pair[0]] == landmark[pair[1]]}
    return (
        f"one landmark: {len(pairs)} pairs, precision {len(right) / max(1, len(pairs)):.3f}; "
        f"{len({name for name, _ in right})} test photos are in a right one"
    )


def dedup_network(weights: Path) -> Any:
    """A network for imagededup's CNN in place of its own, whose weights it downloads: pooled features of lite0."""
    import timm
    import torch
    from imagededup.utils import CustomModel
    from torchvision import transforms

    network = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    stored = torch.load(weights, weights_only=True)
    network.load_state_dict({name: part for name, part in stored.items() if not name.startswith("classifier")})
    steps = [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    return CustomModel(model=network.eval(), transform=transforms.Compose(steps), name="lite0")


def base_name(name: str) -> str:
    return name.rpartition("/")[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "score", "imagededup"))
    parser.add_argument("--toy", type=Path, default=Path("toy"), help="a folder of `ultron datasets make-toy`")
    parser.add_argument("--out", type=Path, default=Path("leaks"))
    parser.add_argument("--network", type=Path, help="weights of tf_efficientnet_lite0, for imagededup's CNN")
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
        same = {(base_name(leak["first"]), base_name(leak["second"])) for leak in leaks if leak["kind"] == "landmark"}
        print(overlaps_scored(same, arguments.toy, planted))
        print(dict(Counter(leak["kind"] for leak in leaks)))
        return 0
    from imagededup.methods import CNN, DHash, PHash  # in an environment of its own

    methods: list[tuple[str, Any, str, tuple[float, ...]]] = [
        ("PHash", PHash(verbose=False), "max_distance_threshold", (4, 10, 14)),
        ("DHash", DHash(verbose=False), "max_distance_threshold", (10,)),
    ]
    if arguments.network:
        cnn = CNN(verbose=False, model_config=dedup_network(arguments.network))
        methods.append(("CNN with lite0", cnn, "min_similarity_threshold", (0.9, 0.95, 0.97, 0.98, 0.99)))
    for name, method, setting, thresholds in methods:
        started_s = time.perf_counter()
        encoded = {
            f"{side}/{path.name}": np.squeeze(code) if isinstance(code, np.ndarray) else code
            for side in ("train", "test")
            for path in sorted((out / side).glob("*.jpg"))
            for code in [method.encode_image(str(path))]
        }
        for threshold in thresholds:
            groups = method.find_duplicates(encoding_map=encoded, **{setting: threshold})
            pairs = {
                (base_name(photo), base_name(other))
                for photo, others in groups.items()
                for other in others
                if photo.startswith("test/") and other.startswith("train/")
            }
            print(scored(pairs, planted, f"imagededup, {name} at {threshold}"))
        print(f"{name}: {time.perf_counter() - started_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
