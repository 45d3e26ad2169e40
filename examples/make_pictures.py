"""Makes the rendered pictures of README and docs anew, after `ultron demo` has finished.

python examples/make_pictures.py [ultron-demo]
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image
from toy_sheet import contact_sheet

from ultron_cli.cli import main

IMAGES = Path(__file__).parents[1] / "docs" / "images"


def run(*arguments: str) -> None:
    """Runs a command of ultron. Ends the program if it fails."""
    if main(list(arguments)) != 0:
        sys.exit(f"failed: ultron {' '.join(arguments)}")


def make_pictures(demo: Path) -> None:
    """Writes docs/images/ranks.png, cam.png and toy.jpg."""
    where = ("--workspace", str(demo / "runs"), "--data-root", str(demo / "data"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run("visualize", "ranks", "--queries-shown", "3", "-k", "8", "--out", str(folder / "ranks.png"), *where)
        run("visualize-cam", "-k", "5", "--out", str(folder / "cam"), *where)
        contact_sheet(demo / "data" / "toy", folder / "toy.png", n_landmarks=6, n_photos=10)
        for source, target in (
            (folder / "ranks.png", "ranks.png"),
            (folder / "cam" / "cam.png", "cam.png"),
            (folder / "toy.png", "toy.jpg"),
        ):
            with Image.open(source) as picture:
                smaller = picture.convert("RGB")
                smaller.thumbnail((1600, 1600))
                # 256 colours keep text and frames sharp at a third of the size.
                final = (
                    smaller.quantize(256, dither=Image.Dither.FLOYDSTEINBERG) if target.endswith(".png") else smaller
                )
                final.save(IMAGES / target, optimize=True)
                print(IMAGES / target)


if __name__ == "__main__":
    make_pictures(Path(sys.argv[1] if len(sys.argv) > 1 else "ultron-demo"))
