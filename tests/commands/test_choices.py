"""What help texts offer and documents list is what there is."""

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Literal, get_args, get_type_hints

from tests.conftest import Run
from ultron_cli.commands import choices
from ultron_cli.models import list_models
from ultron_cli.models.runtimes import RUNTIMES, RuntimeName
from ultron_cli.retrieval.rerank import RERANKERS
from ultron_cli.visualization.cam.method_table import METHODS

ROOT = Path(__file__).resolve().parents[2]


def test_choices_equal_their_registries() -> None:
    from ultron_cli.datasets.build_gnd import GroundTruthConfig
    from ultron_cli.datasets.photos import INTERPOLATIONS
    from ultron_cli.datasets.protocols import PROTOCOLS
    from ultron_cli.evaluation.evaluate import evaluate_ranking
    from ultron_cli.retrieval.extraction.dataset import ExtractRequest
    from ultron_cli.retrieval.whitening_learning import METHODS as WHITENINGS

    assert tuple(PROTOCOLS) == choices.PROTOCOLS
    assert get_args(get_type_hints(evaluate_ranking)["duplicates"]) == choices.DUPLICATES
    assert tuple(WHITENINGS) == choices.WHITENINGS
    assert get_args(get_type_hints(GroundTruthConfig)["query_rule"]) == choices.QUERY_RULES
    assert get_args(get_type_hints(ExtractRequest)["resize"]) == choices.RESIZES
    assert tuple(INTERPOLATIONS) == choices.INTERPOLATIONS
    assert tuple(RUNTIMES) == choices.RUNTIMES[:-1] == get_args(RuntimeName)
    assert get_args(get_type_hints(ExtractRequest)["runtime"]) == (RuntimeName, Literal["auto"])
    assert get_args(get_type_hints(ExtractRequest)["precision"]) == choices.PRECISIONS
    assert get_args(get_type_hints(ExtractRequest)["storage"]) == choices.STORAGES


def test_help_texts_name_every_choice(ultron: Run) -> None:
    def words(name: str) -> str:
        text = " ".join(ultron(*name.split(), "--help")[1].replace("│", " ").split())
        return text.replace("guided- ", "guided-")  # a line may end at the hyphen

    for name in ("search", "evaluate", "serve"):
        assert ", ".join(RERANKERS) in words(name)
    for name in ("visualize cam", "serve"):
        assert all(method in words(name) for method in METHODS)
    assert "flat|fp16|sq8|ivf|ivfpq|opq-ivfpq|hnsw|FACTORY" in words("index")


def test_the_readme_lists_every_model() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    line = text.split("[Models](docs/models.md):")[1].split("(pooling")[0]
    first, listed = "", set()
    for name in line.split("`")[1::2]:  # `cfcd-r50`, `-r101` are cfcd-r50 and cfcd-r101
        if not name.startswith("-"):
            first = name
        listed.add(name if name == first else first.partition("-")[0] + name)
    assert listed == set(list_models())


def test_docs_list_every_loss_with_its_settings() -> None:
    """docs/losses.md has a row per loss; settings that losses with, or without, class weights share stand once."""
    from ultron_cli.training.losses import LOSSES
    from ultron_cli.training.losses.base import ClassSettings
    from ultron_cli.training.losses.batch import BatchSettings

    def defaults(settings: type) -> set[str]:
        return {
            f"{field.name}={json.dumps(field.default).strip(chr(34))}"
            for field in fields(settings)
            if field.default is not MISSING
        }

    text = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| `") or line.startswith("| all")]
    documented = {name.strip().strip("`"): set(settings.split("`")[1::2]) for name, _, settings, _ in rows}
    shared = defaults(ClassSettings) | defaults(BatchSettings)
    assert documented.pop("all of these") == defaults(ClassSettings)
    assert documented == {name: defaults(loss.settings_class()) - shared for name, loss in LOSSES.items()}
    below = text.split("### Their batches")[1]
    assert all(f"loss.{field.name}=" in below for field in fields(BatchSettings))


def test_corruptions_are_those_of_the_registry() -> None:
    from ultron_cli.datasets.corruptions import CORRUPTIONS

    assert tuple(CORRUPTIONS) == choices.CORRUPTIONS
