"""The losses without class weights: value and gradient against literal loops over their papers' sums, and against
pytorch-metric-learning; the memory; batches with nothing to compare; wrong settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning import miners
from torch.nn.functional import normalize

from tests.prepared_python import run_python
from tests.training.losses import literal_batch_losses as literal
from ultron_cli.errors import UltronError
from ultron_cli.training.losses import create_loss, loss_settings, make_loss
from ultron_cli.training.losses.base import nearest_is_right
from ultron_cli.training.losses.batch import BatchLoss, Memory
from ultron_cli.training.losses.smooth_ap import smooth_ap

DIM = 6
LABELS = torch.tensor([4, 4, 4, 1, 1, 1, 7, 7, 7, 2, 2])
OLD_LABELS = torch.tensor([7, 3, 1, 4, 3])
Literal = Callable[..., torch.Tensor]
# Name, settings, the literal loss with its settings.
LOSSES: dict[str, tuple[str, dict[str, Any], Literal, tuple[Any, ...]]] = {
    "contrastive": ("contrastive", {"margin": 0.9}, literal.contrastive, (0.9,)),
    "batch-hard": ("triplet", {"mining": "batch-hard", "margin": 0.3}, literal.triplet, (0.3, "batch-hard")),
    "semi-hard": ("triplet", {"margin": 0.3}, literal.triplet, (0.3, "semi-hard")),
    "multi-similarity": ("multi-similarity", {"beta": 10.0}, literal.multi_similarity, (2.0, 10.0, 0.5, 0.1)),
    "ntxent": ("ntxent", {"temperature": 0.2}, literal.ntxent, (0.2,)),
    "smooth-ap": ("smooth-ap", {"temperature": 0.1}, literal.smooth_ap, (0.1,)),
    "fastap": ("fastap", {"bins": 7}, literal.fastap, (7,)),
}
NAMES = ["contrastive", "triplet", "multi-similarity", "ntxent", "smooth-ap", "fastap"]


def unit(n: int, seed: int = 0) -> torch.Tensor:
    """(n, DIM) float64 unit descriptors."""
    return normalize(torch.randn(n, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)), dim=1)


def make(name: str, **settings: Any) -> BatchLoss:
    loss = make_loss(name, loss_settings(name, settings), n_classes=9, dim=DIM).double()
    assert isinstance(loss, BatchLoss)
    return loss


def value_and_gradient(loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> tuple[float, torch.Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    return value.item(), torch.autograd.grad(value, x)[0]


@pytest.mark.parametrize("n_old", [0, len(OLD_LABELS)])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_those_of_the_literal_loss(name: str, n_old: int) -> None:
    loss_name, settings, literal_loss, values = LOSSES[name]
    if loss_name == "fastap" and n_old:
        return  # ranks the photos of one batch
    loss = make(loss_name, memory=n_old, **settings)
    old, x = unit(n_old, seed=1), unit(len(LABELS))
    if loss.memory is not None:
        loss.memory.store(old, OLD_LABELS)
    labels, all_labels = LABELS.tolist(), [*LABELS.tolist(), *OLD_LABELS[:n_old].tolist()]

    def literally(batch: torch.Tensor) -> torch.Tensor:
        rows = list(normalize(batch, dim=1))
        return literal_loss(rows, labels, [*rows, *old], all_labels, *values)

    value, gradient = value_and_gradient(lambda batch: loss.result(normalize(batch, dim=1), LABELS).loss, x)
    expected, expected_gradient = value_and_gradient(literally, x)
    assert value == pytest.approx(expected, abs=1e-9)
    assert expected_gradient.abs().max() > 1e-3
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-8)


THEIRS: dict[str, tuple[str, dict[str, Any], torch.nn.Module, torch.nn.Module | None]] = {
    "batch-hard": ("triplet", {"mining": "batch-hard"}, theirs.TripletMarginLoss(0.1), miners.BatchHardMiner()),
    "semi-hard": ("triplet", {}, theirs.TripletMarginLoss(0.1), miners.TripletMarginMiner(0.1, "semihard")),
    "multi-similarity": (
        "multi-similarity",
        {},
        theirs.MultiSimilarityLoss(2, 50, 0.5),
        miners.MultiSimilarityMiner(0.1),
    ),
    "ntxent": ("ntxent", {}, theirs.NTXentLoss(0.07), None),
    "fastap": ("fastap", {}, theirs.FastAPLoss(10), None),
}


@pytest.mark.parametrize("name", THEIRS)
def test_value_and_gradient_are_those_of_pytorch_metric_learning(name: str) -> None:
    loss_name, settings, their_loss, miner = THEIRS[name]
    labels = torch.arange(24) // 4
    x = normalize(unit(6, seed=2).repeat_interleave(4, 0) + 0.7 * unit(24), dim=1)
    loss = make(loss_name, **settings)
    value, gradient = value_and_gradient(lambda batch: loss(batch, labels), x)
    # Theirs normalises once more.
    expected = value_and_gradient(lambda batch: their_loss(batch, labels, miner(batch, labels) if miner else None), x)
    assert value == pytest.approx(expected[0], abs=1e-9) and value > 0
    tangent = [rows - (rows * x).sum(1, keepdim=True) * x for rows in (gradient, expected[1])]
    torch.testing.assert_close(*tangent, rtol=0, atol=1e-8)


def test_smooth_ap_with_the_query_in_its_ranking_is_that_of_pytorch_metric_learning() -> None:
    """For as many landmarks as photos of each: theirs (2.9) takes one number for the other, and sums in float32."""
    x, labels = unit(16).requires_grad_(), torch.arange(16) // 4
    everything = torch.ones(16, 16, dtype=torch.bool)
    ours = 1 - smooth_ap(x @ x.T, labels[:, None] == labels, everything, 0.01).mean()
    expected = theirs.SmoothAPLoss(0.01)(x, labels)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-6)
    gradients = [torch.autograd.grad(value, x)[0] for value in (ours, expected)]
    tangent = [rows - (rows * x).sum(1, keepdim=True) * x for rows in gradients]
    torch.testing.assert_close(*tangent, rtol=1e-5, atol=1e-6)


def test_smooth_ap_at_a_low_temperature_is_average_precision() -> None:
    """One query, positives at ranks 1 and 3 of 4: (1 / 1 + 2 / 3) / 2."""
    similarities = torch.tensor([[0.9, 0.5, 0.3, 0.1]], requires_grad=True)
    is_positive = torch.tensor([[True, False, True, False]])
    value = smooth_ap(similarities, is_positive, torch.ones_like(is_positive), 1e-3)
    assert value.item() == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_photos_with_nothing_to_compare_give_no_loss_and_no_gradient(name: str) -> None:
    for labels in (torch.arange(4), torch.zeros(4, dtype=torch.int64)):
        loss, x = make(name), unit(4).requires_grad_()
        value = loss(x, labels)
        value.backward()
        assert torch.isfinite(x.grad).all()
        if name not in ("contrastive", "multi-similarity", "smooth-ap", "fastap"):
            assert value.item() == 0 and not x.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_photos_that_are_described_alike_have_a_finite_gradient(name: str) -> None:
    x = unit(1).repeat(8, 1).requires_grad_()
    make(name)(x, torch.arange(8) // 4).backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_stays_float32_under_autocast(name: str) -> None:
    loss, x = make(name).float(), unit(11).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(x, LABELS).dtype == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_right_ones_are_counted_and_what_chance_gives_is_known(name: str) -> None:
    result = make(name).result(unit(11), LABELS)
    assert result.n_right.item() == nearest_is_right(unit(11), LABELS).sum().item()
    assert make(name).chance(21) == pytest.approx(3 / 20)
    assert make(name, batches="mined", negatives=3).chance(21) == pytest.approx(2 / 5 / 20)


def test_a_memory_replaces_the_oldest_and_is_saved() -> None:
    memory = Memory(5, 2)
    rows = torch.arange(14.0).view(7, 2)
    assert [len(part) for part in memory.rows()] == [0, 0]
    memory.store(rows[:3], torch.tensor([0, 1, 2]))
    assert memory.rows()[1].tolist() == [0, 1, 2]
    memory.store(rows[3:], torch.tensor([3, 4, 5, 6]))
    descriptors, labels = memory.rows()
    assert labels.tolist() == [5, 6, 2, 3, 4] and torch.equal(descriptors[:, 0], labels * 2.0)
    other = Memory(5, 2)
    other.load_state_dict(memory.state_dict())
    memory.store(rows, torch.arange(10, 17))  # more than it holds
    assert sorted(memory.rows()[1].tolist()) == [12, 13, 14, 15, 16]
    assert other.rows()[1].tolist() == [5, 6, 2, 3, 4]


def test_the_memory_is_of_earlier_steps_and_left_alone_by_an_evaluation() -> None:
    loss = make("contrastive", memory=8)
    alone = make("contrastive")
    x = unit(11)
    assert loss(x, LABELS).item() == alone(x, LABELS).item()
    assert loss(x, LABELS).item() != alone(x, LABELS).item()
    n_stored = int(loss.memory.n_stored)
    loss.eval()(x, LABELS)
    assert int(loss.memory.n_stored) == n_stored == 22


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("contrastive", {"margin": 3.0}, r"`loss\.margin` must lie between 0\.0 and 2\.0; found 3\.0"),
        ("contrastive", {"per_landmark": 1}, r"`loss\.per_landmark` must lie between 2 and 1024"),
        ("triplet", {"mining": "easy"}, r"must be one of batch-hard, semi-hard; found 'easy'"),
        ("triplet", {"batches": "any"}, r"must be one of landmarks, mined; found 'any'"),
        ("triplet", {"memory": -1}, r"`loss\.memory`"),
        ("multi-similarity", {"epsilon": -0.1}, r"`loss\.epsilon`"),
        ("ntxent", {"temperature": 0.0}, r"`loss\.temperature`"),
        ("ntxent", {"sharded": True}, r"unknown setting loss\.sharded"),
        ("smooth-ap", {"temperature": 2.0}, r"`loss\.temperature`"),
        ("fastap", {"memory": 100}, r"ranks the photos of one batch; found loss\.memory=100; add `loss\.memory=0`"),
    ],
)
def test_wrong_settings(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        create_loss(name, n_classes=3, dim=4, **settings)


def test_the_library_is_loaded_by_a_training_with_such_a_loss_alone() -> None:
    source = (
        "import sys, ultron_cli.commands.train, ultron_cli.training.config as config\n"
        "config.TrainConfig(loss={'name': 'arcface'})\n"
        "assert 'pytorch_metric_learning' not in sys.modules\n"
        "config.TrainConfig(loss={'name': 'triplet'}).loss_settings\n"
        "assert 'pytorch_metric_learning' in sys.modules"
    )
    done = run_python(["-c", source])
    assert done.returncode == 0, done.stderr
