"""The pictures that a run of `ultron train` leaves in its folder."""

from pathlib import Path

from ultron_cli.configs import read_run as read_settings
from ultron_cli.training.autola.run import AutolaResult
from ultron_cli.visualization.curves.run_curves import curves_figure, read_run
from ultron_cli.visualization.genotype import genotype_figure


def draw_run(folder: Path, search: AutolaResult | None = None) -> None:
    """Draws curves.png from the lines of a run, and genotype.png of what a search found."""
    run = read_run(folder)
    title = f"Training curves: {' on '.join(part for part in (run.model, run.dataset) if part) or run.label}"
    curves_figure([run], title, folder / "curves.png")
    if search is not None:
        config = read_settings(folder).config
        title = f"HOGA found on {Path(config['dataset']).name}, seed {config['seed']}"
        genotype_figure(search.genotype, title, folder / "genotype.png", strengths=search.strengths)
