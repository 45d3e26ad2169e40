"""The catalogue of known datasets."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from ultron_cli.datasets.download.catalog import KNOWN_SETS, find_set
from ultron_cli.datasets.download.known_set import Part
from ultron_cli.errors import UltronError


def test_the_catalog_is_sound() -> None:
    for known in KNOWN_SETS.values():
        for version in known.versions or (None,):
            parts = known.parts_of(version)
            assert len({part.file for part in parts}) == len(parts)
        for part in known.parts:
            assert part.addresses or known.withdrawn
            assert all(address.startswith(("http://", "https://", "ftp://")) for address in part.addresses)
            assert part.kind == "file" or part.into
            assert part.sha256 is None or len(part.sha256) == 64
        assert known.sources
        assert known.needs in ("", *KNOWN_SETS)
    n_archives = {name: sum(part.kind == "photos" for part in known.parts) for name, known in KNOWN_SETS.items()}
    assert [n_archives[name] for name in ("gldv2-train", "gldv2-index", "gldv2-test", "revisitop1m")] == [
        500,
        100,
        20,
        100,
    ]
    with pytest.raises(UltronError, match="did you mean roxford5k"):
        find_set("oxford5k")
    assert Part(file="x").addresses == ()


@pytest.mark.parametrize("name", [name for name, known in KNOWN_SETS.items() if known.finish is not None])
def test_a_finishing_step_takes_the_folder(name: str) -> None:
    finish = KNOWN_SETS[name].finish
    assert finish is not None
    signature = inspect.signature(finish)
    signature.bind(Path("folder"))
    assert (list(signature.parameters), signature.return_annotation) == (["folder"], None)


def test_the_list_needs_neither_numpy_nor_torch() -> None:
    code = "import sys, ultron_cli.datasets.download.catalog; print({'numpy', 'torch'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
