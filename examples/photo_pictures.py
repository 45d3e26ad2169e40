"""Makes the pictures of real photographs in README and docs.

    python examples/photo_pictures.py [--photos DIR] [--weights FILE] [--out DIR]

They show a network that was trained to classify ImageNet (EfficientNet-Lite0, GeM pooling) as it searches landmarks
that it was never trained for. Any folder of photos with a ground truth will do, where --query names queries of it.
docs/images/CREDITS.md says whose the photos are.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

from ultron_cli.cli import main
from ultron_cli.retrieval.descriptors import DescriptorFile

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = CHECKOUT.parent / "shared"
LONGEST_SIDE_PX, MOST_BYTES = 1400, 250_000


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=SHARED / "minidev", help="a dataset folder with a ground truth")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument(
        "--weights",
        type=Path,
        default=SHARED / "weights" / "tf_efficientnet_lite0.pth",
        help="timm's weights of the backbone",
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / "docs" / "images")
    parser.add_argument(
        "--query", default="sacre_coeur_010", help="a query for the ranked list, the maps and the match"
    )
    parser.add_argument(
        "--box", default="315,140,455,245", help="a part of that query to find in its best photos, pixels X1,Y1,X2,Y2"
    )
    parser.add_argument("--second-query", default="lund_door_001", help="another for the ranked list")
    parser.add_argument("--reranked-query", default="sacre_coeur_002", help="one that re-ranking changes")
    parser.add_argument(
        "--layers",
        nargs="+",
        default=["blocks.2", "blocks.4", "blocks.6"],
        help="of the backbone, a column of maps each",
    )
    parser.add_argument("--max-side", default="512")
    return parser.parse_args()


def run(*arguments: object) -> None:
    """Runs a command of ultron. Ends the program if it fails."""
    if main([str(argument) for argument in arguments]) != 0:
        sys.exit(f"failed: ultron {' '.join(map(str, arguments))}")


def keep(picture: Path, target: Path) -> None:
    """Writes a picture as JPEG: no larger than a screen can show, and in the best quality that fits into MOST_BYTES."""
    with Image.open(picture) as file:
        image = file.convert("RGB")
    image.thumbnail((LONGEST_SIDE_PX, LONGEST_SIDE_PX), Image.Resampling.LANCZOS)
    for quality in range(88, 50, -4):
        image.save(target, quality=quality, optimize=True, subsampling=0)
        if target.stat().st_size <= MOST_BYTES:
            break
    print(f"{target}  {image.width} x {image.height}, {target.stat().st_size / 1000:.0f} KB")


def make_pictures(options: argparse.Namespace, folder: Path) -> None:
    """Extracts, searches, re-ranks and draws in a workspace inside `folder`; writes five pictures into --out."""
    where = ("--workspace", folder / "runs", "--quiet")
    network = ("--model", "gem", "--backbone", options.backbone, "--weights", options.weights)
    stored, before, after = folder / "descriptors", folder / "before.h5", folder / "after.h5"
    run(
        "extract",
        "--dataset",
        options.photos,
        *network,
        "--scales",
        "1",
        "--max-side",
        options.max_side,
        "--workers",
        "0",
        "--out",
        stored,
        *where,
    )
    with DescriptorFile(stored / "database.h5") as database:
        whole = ("-k", database.n)
    files = ("--queries", stored / "queries.h5", "--database", stored / "database.h5")
    run("search", *files, *whole, "--out", before, *where)
    run("search", *files, *whole, "--rerank", "superglobal", "--out", after, *where)

    two = ("--query", options.query, "--query", options.second_query)
    run("visualize", "ranks", "--ranks", before, *two, "-k", "4", "--out", folder / "ranks.png", *where)
    columns = [
        part
        for layer in options.layers
        for part in ("--ranks", before, "--label", f"gem-{options.backbone}", "--layer", layer)
    ]
    run("visualize", "cam", *columns, "--query", options.query, "-k", "2", "--out", folder / "cam", *where)
    run(
        "visualize",
        "match",
        "--ranks",
        before,
        "--query",
        options.query,
        "--box",
        options.box,
        "-k",
        "3",
        "--layer",
        options.layers[1],
        "--out",
        folder / "match.png",
        *where,
    )
    run(
        "visualize",
        "tsne",
        "--database",
        stored / "database.h5",
        "--perplexity",
        "12",
        "--most",
        "10",
        "--out",
        folder / "tsne.png",
        *where,
    )
    systems = ("--ranks", before, "--label", "GeM", "--ranks", after, "--label", "re-ranked (SuperGlobal)")
    run(
        "visualize",
        "ranks",
        *systems,
        "--moves",
        "--query",
        options.reranked_query,
        "-k",
        "5",
        "--out",
        folder / "reranked.png",
        *where,
    )
    for source in ("ranks.png", "cam/cam.png", "match.png", "tsne.png", "reranked.png"):
        keep(folder / source, options.out / f"photos-{Path(source).stem}.jpg")


if __name__ == "__main__":
    options = parse()
    with tempfile.TemporaryDirectory() as temporary:
        make_pictures(options, Path(temporary))
