"""Mirrors and addresses of one's own."""

from pathlib import Path

import pytest

from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.datasets.download.mirrors import read_mirrors
from ultron_cli.errors import UltronError


def test_mirrors_toml(tmp_path: Path) -> None:
    known, part = KNOWN_SETS["roxford5k"], KNOWN_SETS["roxford5k"].parts[0]
    (tmp_path / "mirrors.toml").write_text(
        'mirrors = ["/mnt/x", "https://m.org/"]\n[addresses]\n"roxford5k/oxbuild_images-v1.tgz" = '
        '"ftp://own.org/ox.tgz"\n'
    )
    addresses = read_mirrors(tmp_path, ["http://asked"]).of_part(known, part)
    assert addresses == (
        "http://asked/roxford5k/oxbuild_images-v1.tgz",
        "ftp://own.org/ox.tgz",
        "/mnt/x/roxford5k/oxbuild_images-v1.tgz",
        "https://m.org/roxford5k/oxbuild_images-v1.tgz",
        *part.addresses,
    )
    for text, words in (
        ("mirrrors = []", "unknown setting 'mirrrors'; did you mean mirrors"),
        ("mirrors = 3", "mirrors must be text or a list, found a whole number"),
        ('mirrors = ["gopher://x"]', "an address must start with http"),
        ("addresses = 3", "addresses must be an object, found a whole number"),
        ("mirrors = [", "not valid TOML"),
    ):
        (tmp_path / "mirrors.toml").write_text(text)
        with pytest.raises(UltronError, match=words):
            read_mirrors(tmp_path)
