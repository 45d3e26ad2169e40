"""No reader goes round the schema layer."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "ultron_cli"
PARSES = re.compile(r"json\.loads?\(|tomllib\.|csv\.(reader|DictReader)\(|msgspec\.(json|toml)\.(decode|Decoder)")
# What processes of one extraction say to each other, what a command has just written, a plan as it will be stored.
OWN_TEXT = {"retrieval/extraction/processes.py", "datasets/build_gnd.py", "sweep/plan.py"}


def test_no_other_module_parses_text_from_outside() -> None:
    sources = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}
    parsing = {name for name, source in sources.items() if PARSES.search(source) and not name.startswith("schema/")}
    assert parsing <= OWN_TEXT
