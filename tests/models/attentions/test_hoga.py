"""HOGA against a literal second implementation of its graph, and its genotype as text and picture."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from tests.models.attentions.conftest import C
from tests.models.attentions.test_attentions import literal_channel_gate, shaken
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.attentions.genotype import (
    OPERATIONS,
    PUBLISHED,
    Edge,
    load_genotype,
    parse_genotype,
    save_genotype,
)
from ultron_cli.models.attentions.hoga import Hoga, HogaSearch, make_operation
from ultron_cli.visualization.genotype import genotype_figure


def norm(module: nn.Module, x: Tensor) -> Tensor:
    weight, bias = (1.0, 0.0) if module.weight is None else (module.weight[:, None, None], module.bias[:, None, None])
    return (x - module.running_mean[:, None, None]) / (module.running_var[:, None, None] + 1e-5).sqrt() * weight + bias


def literal_operation(name: str, module: nn.Module, x: Tensor) -> Tensor:
    """One operation on (c, H, W), written out from the definitions in FACTS and the authors' code."""
    if name == "none":
        return x * 0
    if name == "skip":
        return x
    if name in ("se", "se_max"):
        return literal_channel_gate(module, x, with_maximum=name == "se_max")
    if name == "cbam":
        x = literal_channel_gate(module.channels, x, with_maximum=True)
        pooled = torch.stack([x.max(0).values, x.mean(0)])
        return x * norm(module.norm, F.conv2d(pooled[None], module.places.weight, padding=3)[0]).sigmoid()
    gate_input = torch.stack([x.max(0).values, x.mean(0)]) if name.endswith("spatial") else x
    weights = [part.weight for part in module.op if isinstance(part, nn.Conv2d)]
    norms = [part for part in module.op if isinstance(part, nn.BatchNorm2d)]
    if name.startswith("dil"):
        depthwise = F.conv2d(
            gate_input[None], weights[0], padding=2, dilation=2, groups=1 if name == "dil_spatial" else len(gate_input)
        )
        return x * norm(norms[0], F.conv2d(depthwise, weights[1])[0]).sigmoid()
    first = F.conv2d(F.conv2d(gate_input[None], weights[0], padding=1, groups=len(gate_input)), weights[1])[0]
    first = norm(norms[0], first).clamp(min=0)
    second = F.conv2d(F.conv2d(first[None], weights[2], padding=1, groups=len(first)), weights[3])[0]
    return x * norm(norms[1], second).sigmoid()


def literal_frame(frame: nn.Module, photo: Tensor, nodes: list[Tensor]) -> Tensor:
    c = C // 4
    summed = literal_channel_gate(
        frame.sum_gate, photo[:c] + photo[c : 2 * c] + photo[2 * c : 3 * c] + photo[3 * c :], with_maximum=False
    )
    joined = norm(frame.join_norm, F.conv2d(torch.cat([*nodes, summed])[None], frame.join.weight)[0]).clamp(min=0)
    back = norm(frame.back_norm, F.conv2d(joined[None], frame.back.weight)[0])
    return literal_channel_gate(frame.gate, back + photo, with_maximum=False)


@torch.no_grad()
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_equal_their_literal_form(name: str, affine: bool, maps: Tensor) -> None:
    torch.manual_seed(0)
    module = shaken(make_operation(name, C, affine=affine))
    torch.testing.assert_close(
        module(maps), torch.stack([literal_operation(name, module, photo) for photo in maps]), rtol=0, atol=2e-5
    )


@torch.no_grad()
def test_hoga_equals_its_literal_form(maps: Tensor) -> None:
    """The published graph, spelt out edge by edge as the paper's figure has it."""
    torch.manual_seed(0)
    module = shaken(Hoga(C))
    out = []
    for photo in maps:
        g1, g2, g3, g4 = photo.split(C // 4)
        op = module.operations
        n1 = g1
        n2 = literal_operation("sep_spatial", op[1][0], g2) + literal_operation("sep", op[1][1], n1)
        n3 = literal_operation("cbam", op[2][0], g3) + n2 + literal_operation("sep", op[2][2], n1)
        n4 = (
            literal_operation("sep", op[3][0], g4)
            + n1
            + literal_operation("sep", op[3][2], n3)
            + literal_operation("dil", op[3][3], n2)
        )
        out.append(literal_frame(module.frame, photo, [n1, n2, n3, n4]))
    torch.testing.assert_close(module(maps), torch.stack(out), rtol=0, atol=2e-5)


def test_gates_around_the_graph_reduce_as_in_the_authors_networks() -> None:
    """By 8 and 8 in the network of a genotype, by 4 (sum) and 16 (end) in the one that is searched in."""
    of_genotype, searched = Hoga(64).frame, HogaSearch(64).frame
    assert (of_genotype.sum_gate.squeeze.out_features, of_genotype.gate.squeeze.out_features) == (16 // 8, 64 // 8)
    assert (searched.sum_gate.squeeze.out_features, searched.gate.squeeze.out_features) == (16 // 4, 64 // 16)


@torch.no_grad()
def test_search_form_is_the_weighted_sum(maps: Tensor) -> None:
    torch.manual_seed(0)
    module, weights = shaken(HogaSearch(C)), torch.rand(10, 9).softmax(1)
    out = []
    for photo in maps:
        nodes: list[Tensor] = []
        edge = 0
        for group in photo.split(C // 4):
            total = torch.zeros_like(group)
            for source in [group, *nodes]:
                for column, name in enumerate(OPERATIONS[1:], start=1):
                    total = total + weights[edge, column] * literal_operation(
                        name, module.edges[edge][column - 1], source
                    )
                edge += 1
            nodes.append(total)
        out.append(literal_frame(module.frame, photo, nodes))
    torch.testing.assert_close(module(maps, weights), torch.stack(out), rtol=0, atol=2e-5)


@torch.no_grad()
def test_search_with_one_operation_per_edge_is_that_genotype(maps: Tensor) -> None:
    """Weights of 0 and 1 give the discrete attention with the same operations."""
    torch.manual_seed(0)
    genotype = parse_genotype("sep:0/cbam:0,skip:1/none:0,dil:1,se:2/skip:0,se_max:1,none:2,dil_spatial:3")
    search = shaken(HogaSearch(C))
    weights = torch.zeros(10, 9)
    discrete = Hoga(C, genotype.text)
    discrete.frame = search.frame
    row = 0
    for node, edges in enumerate(genotype.nodes):
        for place, edge in enumerate(edges):
            column = OPERATIONS.index(edge.operation)
            weights[row, column] = 1.0
            if column:
                discrete.operations[node][place] = search.edges[row][column - 1]
            row += 1
    torch.testing.assert_close(discrete.eval()(maps), search(maps, weights), rtol=0, atol=1e-6)


def test_genotype_is_text_and_file(tmp_path: Path) -> None:
    genotype = parse_genotype(PUBLISHED)
    assert genotype.text == PUBLISHED and genotype.nodes[3] == (
        Edge("sep", 0),
        Edge("skip", 1),
        Edge("sep", 3),
        Edge("dil", 2),
    )
    authors = "skip_connect:0 / sep_conv_3x3_spatial:0, sep_conv_3x3:1 / CBAM:0,skip_connect:2,sep_conv_3x3:1 "
    assert parse_genotype(authors + "/ sep_conv_3x3:0,skip_connect:1,sep_conv_3x3:3,dil_conv_3x3:2") == genotype
    save_genotype(tmp_path / "g.txt", genotype, "found on CIFAR-10\nseed 2")
    assert (tmp_path / "g.txt").read_text() == f"# found on CIFAR-10\n# seed 2\n{PUBLISHED}\n"
    assert load_genotype(tmp_path / "g.txt") == genotype


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skip:0/skip:0", "a genotype has 4 nodes, with / between; found 2"),
        ("skip:0//skip:0/skip:0", "node 2 has no edge; give it at least one, such as skip:0"),
        ("skip:0/spe:0/skip:0/skip:0", "node 2 has an unknown operation 'spe'; did you mean .*sep"),
        ("skip:1/skip:0/skip:0/skip:0", "node 1 takes input 0 .its group. or the nodes before it, 0 to 0; found 1"),
        ("skip:0/skip/skip:0/skip:0", r"an edge is OPERATION:INPUT \(sep:0\); found 'skip' in node 2"),
        ("skip:-1/skip:0/skip:0/skip:0", "found 'skip:-1' in node 1"),
        ("", "found 1"),
    ],
)
def test_mistakes_in_a_genotype_are_told(text: str, message: str) -> None:
    with pytest.raises(UltronError, match=message):
        create_model("gem", backbone="test_resnet", attention="hoga", genotype=text)


def test_mistakes_in_a_genotype_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(UltronError, match=r"cannot be read \(No such file"):
        load_genotype(tmp_path / "absent.txt")
    (tmp_path / "two.txt").write_text(f"{PUBLISHED}\n{PUBLISHED}\n")
    with pytest.raises(UltronError, match="must hold one genotype on one line, found 2"):
        load_genotype(tmp_path / "two.txt")


def test_a_genotype_of_ones_own_is_used_and_odd_channels_are_refused() -> None:
    model = create_model(
        "gem", backbone="test_resnet", attention="hoga", genotype="se:0/skip:0/skip:0/skip:0", attention_stages=(4,)
    )
    assert model.backbone.network.layer4[0].se.genotype.text == "se:0/skip:0/skip:0/skip:0"
    with pytest.raises(UltronError, match="hoga splits channels into 4 groups and 18 do not divide"):
        Hoga(18)


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_genotype_is_drawn(suffix: str, tmp_path: Path) -> None:
    out = genotype_figure(
        parse_genotype(PUBLISHED),
        "HOGA",
        tmp_path / f"g.{suffix}",
        strengths=[[0.5], [0.4, 0.9], [0.1, 0.2, 0.3], [0.4, 0.4, 0.4, 0.4]],
    )
    assert out.stat().st_size > 4000
    if suffix == "png":
        with Image.open(out) as image:
            assert len(image.convert("L").getcolors() or range(257)) > 20


def test_a_figure_needs_a_known_suffix(tmp_path: Path) -> None:
    with pytest.raises(UltronError, match="a figure is written as"):
        genotype_figure(parse_genotype(PUBLISHED), "HOGA", tmp_path / "g.gif")
