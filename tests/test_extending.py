"""The page docs/extending.md, run: each example is a file outside the package, and its commands work as they stand."""

import re
import runpy
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
BLOCK = re.compile(r"^```(python|toml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXTRACTION = "ultron extract photos --untrained --backbone resnet10t --out descriptors"  # of many sections
EXTRACTED: list[Path] = []  # what the first of them made
SMALL = """
side_px = 32
batch_size = 8
epochs = 1
workers = 0
warmup_epochs = 0.0
[validation]
share = 0.0
[model]
name = "gem"
backbone = "resnet10t"
"""


def sections() -> dict[str, list[tuple[str, str]]]:
    """Title -> (language, text) of its blocks, for every section with a command."""
    parts = PAGE.read_text(encoding="utf-8").split("\n## ")[1:]
    blocks = {part.split("\n")[0]: BLOCK.findall(part) for part in parts}
    return {title: of_section for title, of_section in blocks.items() if of_section}


SECTIONS = sections()


@pytest.fixture
def folder(tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with every file of the page, `photos` and what the commands take from elsewhere."""
    work = tmp_path / "work"
    work.mkdir()
    for blocks in SECTIONS.values():
        for language, text in blocks:
            if language != "sh":
                (work / text.split("\n")[0].removeprefix("# ")).write_text(text)
    (work / "small.toml").write_text(SMALL)
    (work / "photos").symlink_to(toy)
    monkeypatch.chdir(work)
    return work


def run_commands(ultron: Run, title: str) -> None:
    """The section's command lines; a training is made as small as it can be."""
    (commands,) = [text for language, text in SECTIONS[title] if language == "sh"]
    for line in commands.strip().split("\n"):
        program, *arguments = shlex.split(line)
        if program == "python":
            runpy.run_path(arguments[0])
            continue
        if line == EXTRACTION and EXTRACTED:
            shutil.copytree(EXTRACTED[0], "descriptors")
            continue
        if arguments[0] == "train" and "--resume" not in arguments:
            is_set = "--config" in arguments or "--descriptors" in arguments
            arguments += ["--set", "workers=0"] if is_set else ["--config", "small.toml"]
            arguments += ["--set", "batch_size=8"] if "--descriptors" in arguments else []
            arguments += ["--overwrite"]
        code, _, err = ultron(*arguments)
        assert code == 0, f"{line}\n{err}"
        if line == EXTRACTION:
            EXTRACTED.append(Path("descriptors").absolute())


def test_examples_are_short() -> None:
    assert len(SECTIONS) == 24
    for blocks in SECTIONS.values():
        for language, text in blocks:
            lines = [line for line in text.split("\n") if line.strip() and not line.startswith(("#", "import", "from"))]
            assert language == "sh" or len(lines) < 30


@pytest.mark.parametrize("title", [title for title in SECTIONS if title not in ("A dataset to evaluate on",)])
def test_commands_of_the_page(title: str, folder: Path, ultron: Run) -> None:
    import torch

    from ultron_cli.models import create_model

    if "importer" in title:
        network = create_model("gem", backbone="resnet10t").backbone.network
        state = {f"encoder.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save(state, folder / "theirs.pth")
    run_commands(ultron, title)


def test_a_dataset_of_photos_by_name(folder: Path, toy: Path, ultron: Run) -> None:
    (folder / "mine" / "jpg").mkdir(parents=True)
    for n, photo in enumerate(sorted((toy / "jpg").glob("*.jpg"))[:4]):
        (folder / "mine" / "jpg" / f"tower{n // 2}_{1 + n % 2}.jpg").write_bytes(photo.read_bytes())
    run_commands(ultron, "A dataset to evaluate on")
