"""SALAD against the paper's equations in loops, the masses of its transport, and small maps."""

import pytest
import torch

from tests.models.parts.literal_salad import salad
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.parts.salad import Salad, transported


def small(seed: int) -> Salad:
    torch.manual_seed(seed)
    return Salad(6, n_clusters=3, cluster_dim=4, token_dim=5, hidden_dim=7, iterations=3 + seed).eval()


@pytest.mark.parametrize(("seed", "shape"), [(0, (3, 4)), (1, (2, 2)), (2, (1, 9))])
def test_it_equals_the_equations(seed: int, shape: tuple[int, int]) -> None:
    pooling = small(seed)
    with torch.no_grad():
        pooling.dustbin.fill_(0.5 * seed)
        maps = torch.randn(2, 6, *shape)
        expected = [salad(pooling, photo.flatten(1).T.tolist()) for photo in maps]
        torch.testing.assert_close(pooling(maps), torch.tensor(expected), atol=2e-5, rtol=1e-4)


def test_places_are_shared_out_whole() -> None:
    scores = torch.randn(2, 4, 10, dtype=torch.float64)
    shares = transported(scores, torch.tensor(1.0, dtype=torch.float64), 200)
    torch.testing.assert_close(shares.sum(2), torch.ones(2, 4, dtype=torch.float64))  # a cluster takes 1
    assert (shares.sum(1) < 1).all()  # the dustbin takes the rest of every place
    assert shares.sum().item() == pytest.approx(2 * 4)


@pytest.mark.parametrize("n_places", [1, 3, 4, 5])
def test_maps_of_fewer_places_than_clusters(n_places: int) -> None:
    scores = torch.randn(1, 4, n_places, dtype=torch.float64, requires_grad=True)
    shares = transported(scores, torch.tensor(1.0, dtype=torch.float64), 300)
    torch.testing.assert_close(shares.sum(2), torch.full((1, 4), min(1.0, n_places / 5), dtype=torch.float64))
    shares.square().sum().backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


def test_gradients_and_half_precision() -> None:
    pooling = small(0).double()
    maps = torch.randn(2, 6, 3, 3)
    scores = torch.randn(1, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: transported(values, pooling.dustbin, 3), (scores,))
    pooling.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = pooling(maps)
    assert output.dtype == torch.float32 and torch.isfinite(output).all()


def test_settings_of_a_model() -> None:
    settings = {"n_clusters": 4, "cluster_dim": 8, "token_dim": 16, "hidden_dim": 32}
    model = create_model("gem", backbone="resnet10t", pooling="salad", pooling_settings=settings)
    assert model.descriptor_dim == 16 + 4 * 8
    assert model(torch.randn(2, 3, 64, 96)).shape == (2, 48)
    shorter = create_model("gem", backbone="resnet10t", pooling="salad", pooling_settings=settings, descriptor_dim=10)
    assert shorter(torch.randn(1, 3, 64, 64)).shape == (1, 10)
    with pytest.raises(UltronError, match=r"unknown setting model.pooling_settings.clusters; did you mean n_clusters"):
        create_model("gem", backbone="resnet10t", pooling="salad", pooling_settings={"clusters": 4})
    with pytest.raises(UltronError, match=r"`model.pooling_settings.n_clusters` must lie between 1 and 65536; found 0"):
        create_model("gem", backbone="resnet10t", pooling="salad", pooling_settings={"n_clusters": 0})
    with pytest.raises(UltronError, match=r"pooling_settings are of poolings that list them \(salad\) and of your own"):
        create_model("gem", backbone="resnet10t", pooling="gem", pooling_settings={"n_clusters": 4})
