"""Sweeps as files: which cells they hold, how those are called and compared, and what is refused by name and place."""

from pathlib import Path

import pytest

from ultron_cli.configs import SCALE_SETS
from ultron_cli.errors import UltronError
from ultron_cli.sweep.plan import SweepPlan, list_presets, read_plan

MODEL = '[model]\nname = "gem"\nbackbone = "test_resnet"\nuntrained = true\n'


def plan_of(tmp_path: Path, text: str, *assignments: str, **fixed: dict[str, object]) -> SweepPlan:
    path = tmp_path / "plan.toml"
    path.write_text(text + MODEL)
    return read_plan(str(path), assignments, fixed)


def test_a_grid_tries_every_combination_in_the_order_of_the_file(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        "[extract]\nmax_side_px = 64\n[grid]\nextract.scales = [3, [0.5, 1]]\n"
        'whiten = [{label = "raw"}, {method = "pca", dim = 8}]\nsearch.rerank = ["none", "aqe"]\n',
    )
    assert [cell.name for cell in plan.cells] == [
        "scales=3, raw, rerank=none",
        "scales=3, raw, rerank=aqe",
        "scales=3, whiten=method=pca dim=8, rerank=none",
        "scales=3, whiten=method=pca dim=8, rerank=aqe",
        "scales=0.5+1, raw, rerank=none",
        "scales=0.5+1, raw, rerank=aqe",
        "scales=0.5+1, whiten=method=pca dim=8, rerank=none",
        "scales=0.5+1, whiten=method=pca dim=8, rerank=aqe",
    ]
    last = plan.cells[-1].settings
    assert (last.extract.scales, last.extract.max_side_px) == ("0.5,1", 64)
    assert (last.whiten.method, last.whiten.dim, last.search.rerank) == ("pca", 8, "aqe")
    assert last.extract.request("query", 0).scales == (0.5, 1.0)
    assert plan.cells[0].settings.extract.request("query", 0).scales == SCALE_SETS["3"]
    assert {cell.baseline for cell in plan.cells} == {"scales=3, raw, rerank=none"}


def test_a_list_is_tried_with_every_combination_and_has_its_first_as_baseline(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        '[grid]\nmodel = [{label = "a", seed = 0}, {label = "b", seed = 1}]\n[[cell]]\nname = "plain"\n'
        '[[cell]]\nextract.crop = "none"\nextract.scales = 1\n',
    )
    assert [(cell.name, cell.baseline) for cell in plan.cells] == [
        ("a, plain", "a, plain"),
        ("a, crop=none, scales=1", "a, plain"),
        ("b, plain", "b, plain"),
        ("b, crop=none, scales=1", "b, plain"),
    ]
    assert [cell.settings.model.seed for cell in plan.cells] == [0, 0, 1, 1]


def test_flags_replace_what_the_file_says(tmp_path: Path) -> None:
    text = '[extract]\ndataset = "a"\nscales = 1\n'
    plan = plan_of(tmp_path, text, "extract.scales=5", "grid.search.k=[5, 10]", extract={"dataset": "b"})
    assert [cell.name for cell in plan.cells] == ["k=5", "k=10"]
    assert {(cell.settings.extract.dataset, cell.settings.extract.scales) for cell in plan.cells} == {("b", "5")}


def test_runs_are_training_seeds_of_one_cell(tmp_path: Path) -> None:
    (cell,) = plan_of(tmp_path, "", 'model.runs=["x", "y"]').cells
    assert [settings.model.run for settings in cell.settings.of_seeds()] == ["x", "y"]


def test_every_preset_is_a_plan() -> None:
    for name in list_presets():
        plan = read_plan(name, [])
        assert plan.name == name and len(plan.cells) > 5
        assert read_plan(name, []).differences(plan.to_plain()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[extrakt]\nscales = 1", "unknown table extrakt; did you mean extract.*known: model, extract"),
        ("[extract]\nscals = 1", r"cell 'all': unknown setting extract.scals; did you mean scales\?"),
        ('[extract]\nscales = "x"', "cell 'all': `scales` takes 1, 3, 5 or different numbers"),
        ("[extract]\nmax_side_px = 3", "`extract.max_side_px` must lie between 32 and 16384; found 3"),
        ("[extract]\nscales = true", "`scales` takes 1, 3, 5 or"),
        ("[grid]\nextract.scales = 3", r"grid.extract.scales must be a list of values to try; found 3"),
        ("[grid]\nextract.scales = []", r"must be a list of values to try; found \[\]"),
        ("grid = 3", "grid must be a table; found 3"),
        ("cell = 3", r"cell must be a list of tables, each under \[\[cell\]\]; found 3"),
        ("[[cell]]\nname = 3", r"cell\[0\].name must be text; found 3"),
        ("[[cell]]\nextrct.scales = 3", r"cell\[0\] has an unknown table extrct; did you mean extract"),
        ('[[cell]]\nname = "a"\n[[cell]]\nname = "a"', "two cells are called 'a'; give each a name"),
        ("[grid]\nsearch.k = [1, 1]", "two cells are called 'k=1'"),
        ("[grid]\nsearch.k = [0]", "cell 'k=0': `search.k` must be at least 1; found 0"),
        ('[search]\nrerank = "aqr"', "`rerank` must be one of superglobal, aqe"),
        ("[search.rerank_set]\naqe = 3", "search.rerank_set.aqe must be a table of settings; found 3"),
        ('[whiten]\nmethod = "pcaw"', "`whiten.method` must be one of none, pca, pca-whitening, lw"),
        ("[index]\nnprobe = 3", "index.nprobe belongs to an index; name one with index.kind"),
        ('[index]\nkind = "flat"\n[search]\ndistractors = ["d.h5"]', "leave out search.distractors or index.kind"),
        ("[grid]\nsearch.k = 5\n[", "is not valid TOML: .*line 3"),
    ],
)
def test_what_no_sweep_can_be_is_told_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UltronError, match=words) as caught:
        plan_of(tmp_path, f"{text}\n")
    assert str(tmp_path / "plan.toml") in caught.value.message


def test_too_many_cells_are_counted(tmp_path: Path) -> None:
    numbers = list(range(1, 60))
    with pytest.raises(UltronError, match="up to 2,000 cells; found 3,481"):
        plan_of(tmp_path, "", f"grid.search.k={numbers}", f"grid.model.seed={numbers}")


def test_a_name_that_is_neither_file_nor_preset() -> None:
    with pytest.raises(
        UltronError, match=r"a sweep is a TOML file or one of .*protocol-worth.*; found 'protocol-wort'"
    ):
        read_plan("protocol-wort", [])
    with pytest.raises(UltronError, match=r"nowhere\.toml"):
        read_plan("nowhere.toml", [])


def test_differences_are_told_cell_by_cell(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "[grid]\nsearch.k = [5, 10]\n")
    other = plan_of(tmp_path, "[grid]\nsearch.k = [5, 20]\n[extract]\nmax_side_px = 64\n")
    assert other.differences(plan.to_plain()) == [
        "without k=10",
        "with k=20",
        "k=5: extract.max_side_px (stored None, asked 64)",
    ]
    assert plan.differences(plan.to_plain()) == []
