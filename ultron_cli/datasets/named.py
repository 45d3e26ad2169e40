"""Opens a dataset by name, or the one that a command takes when it is told none. The rendered landmarks are made on
first use."""

from pathlib import Path
from typing import TYPE_CHECKING

from ultron_cli.configs import read_run
from ultron_cli.console import log, progress
from ultron_cli.datasets.folder import Dataset, open_dataset
from ultron_cli.machine import n_cores
from ultron_cli.workspace import Workspace

if TYPE_CHECKING:
    from ultron_cli.datasets.toy import ToyConfig


def render_toy(folder: Path, config: "ToyConfig | None" = None) -> Path:
    """Renders landmarks into `folder` with a progress bar and returns it; a finished set of the same configuration is
    reused."""
    from ultron_cli.datasets.toy import ToyConfig, make_toy

    with progress(total=None, what="render") as bar:

        def on_photo(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        make_toy(folder, config or ToyConfig(), workers=n_cores(), on_photo=on_photo)
    return folder


def dataset_folder(text: str, workspace: Workspace) -> str:
    """`text`, after rendering the toy landmarks if that is what is asked for and they are not there yet."""
    folder = workspace.data_root / "toy"
    if text == "toy" and not Path(text).is_dir() and not folder.is_dir():
        log.info("rendering the toy landmarks into %s (once)", folder)
        render_toy(folder)
    return text


def default_dataset(workspace: Workspace) -> str:
    """The dataset of the latest training run, else `toy`."""
    run = workspace.latest("train")
    if run is None:
        return "toy"
    stored = read_run(run)
    text = str(stored.config.get("dataset", "toy"))
    if stored.config.get("descriptors"):  # whose dataset the run only found
        text = str(stored.provenance.get("dataset_folder", text))
    return text


def open_named_dataset(text: str | None, gnd: Path | None = None, workspace: Workspace | None = None) -> Dataset:
    """A dataset by name or folder; None takes that of the latest training run, else `toy`. Raises UltronError."""
    workspace = workspace or Workspace()
    if text is None:
        text = default_dataset(workspace)
        log.info("taking dataset %s", text)
    return open_dataset(dataset_folder(text, workspace), workspace.data_root, gnd)
