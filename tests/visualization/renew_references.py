"""Draws the reference pictures anew: python -m tests.visualization.renew_references [NAME ...], from the checkout's
folder."""

import sys
import tempfile
from pathlib import Path

from tests.visualization.pictures import PICTURES, REFERENCES, small


def renew(names: list[str]) -> None:
    """Writes the references named (all), each made small."""
    unknown = [name for name in names if name not in PICTURES]
    if unknown:
        sys.exit(f"no picture {unknown[0]!r} (known: {', '.join(PICTURES)})")
    REFERENCES.mkdir(exist_ok=True)
    for name in names or PICTURES:
        with tempfile.TemporaryDirectory() as temporary:
            picture = small(PICTURES[name](Path(temporary) / f"{name}.png"))
        target = REFERENCES / f"{name}.png"
        picture.save(target, optimize=True)
        print(f"{target}  {target.stat().st_size / 1000:.0f} KB")


if __name__ == "__main__":
    renew(sys.argv[1:])
