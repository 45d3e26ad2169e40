"""What is known to differ between the making of descriptors and a published score of their model."""

from pathlib import Path

from ultron_cli.console import lines
from ultron_cli.evaluation.expected import differences_from, find_published
from ultron_cli.evaluation.published import PUBLISHED
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.origin import Origin


def published_differences(path: Path) -> tuple[dict[str, object], str]:
    """(JSON, text) of what differs from the published protocols of a descriptor file's model on its dataset. Raises
    UltronError for no descriptor file."""
    with DescriptorFile(path) as file:
        info = file.info
    origin = Origin(
        dataset=info.dataset,
        model=info.model,
        weights_sha256=info.weights_sha256,
        extraction=info.extraction,
        weights=info.provenance.weights,
    )
    rows = [row for row in find_published(info.model, info.dataset, 0) if row.mAP]
    published = [{"source": row.source, "mAP": dict(row.mAP), "differs": differences_from(row, origin)} for row in rows]
    content: dict[str, object] = {"model": info.model, "dataset": info.dataset, "published": published}
    if not rows:
        known = ", ".join(dict.fromkeys(f"{row.model} on {row.dataset}" for row in PUBLISHED if row.model))
        return content, f"nothing is published for {info.model} on {info.dataset} (known: {known})"
    row, differs = rows[0], differences_from(rows[0], origin)
    scores = ", ".join(f"{name} {value:.2f}" for name, value in row.mAP.items())
    return content, lines(
        f"{info.model} on {info.dataset}: published {scores} ({row.source})",
        *(f"differs: {phrase}" for phrase in differs),
    )
