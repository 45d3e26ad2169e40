"""Structural similarity against its definition, a loop over windows, and what it must tell apart."""

import numpy as np
import pytest

from tests.visualization.ssim import C1, C2, gaussian, similarity, ssim_map


def by_loop(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Equations 13 to 16 window by window, with weighed moments about the mean."""
    window = np.outer(gaussian(), gaussian())
    similarities = np.empty((a.shape[0] - 10, a.shape[1] - 10))
    for y in range(similarities.shape[0]):
        for x in range(similarities.shape[1]):
            p, q = a[y : y + 11, x : x + 11].astype(float), b[y : y + 11, x : x + 11].astype(float)
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq, c = (
                (window * (p - mp) ** 2).sum(),
                (window * (q - mq) ** 2).sum(),
                (window * (p - mp) * (q - mq)).sum(),
            )
            similarities[y, x] = (2 * mp * mq + C1) * (2 * c + C2) / ((mp**2 + mq**2 + C1) * (vp + vq + C2))
    return similarities


def test_window_is_the_papers() -> None:
    weights = gaussian()
    assert weights.shape == (11,) and weights.sum() == pytest.approx(1) and np.array_equal(weights, weights[::-1])
    assert weights[5] / weights[4] == pytest.approx(np.exp(1 / 4.5))  # exp(-0) over exp(-1 / (2 * 1.5^2))


def test_map_equals_a_loop_over_windows() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (17, 21)), rng.integers(0, 256, (17, 21))
    np.testing.assert_allclose(ssim_map(a, b), by_loop(a, b), atol=1e-9)
    np.testing.assert_allclose(ssim_map(a, a), 1, atol=1e-12)


def test_flat_pictures_by_hand() -> None:
    """Without variance only luminance counts: of 100 and 200, (2 * 20000 + C1) / (10000 + 40000 + C1)."""
    a, b = np.full((12, 12), 100), np.full((12, 12), 200)
    np.testing.assert_allclose(ssim_map(a, b), (40000 + C1) / (50000 + C1), rtol=1e-9)
    inverted = ssim_map(np.indices((20, 20)).sum(0) % 2 * 255, (np.indices((20, 20)).sum(0) + 1) % 2 * 255)
    assert inverted.max() < -0.9


def test_blank_paper_does_not_count() -> None:
    """A square that is gone lowers the similarity as much on large paper as on small; one of many is seen in its
    block."""
    means = []
    for side in (60, 400):
        drawn = np.full((side, side, 3), 255, np.uint8)
        blank = drawn.copy()
        drawn[20:40, 20:40] = (0, 158, 115)
        means.append(similarity(drawn, blank)[0])
        assert similarity(drawn, drawn) == pytest.approx((1, 1))
    assert means[0] == pytest.approx(means[1]) and means[0] < 0.6
    assert similarity(blank, blank) == (1, 1)
    many = np.full((400, 400, 3), 255, np.uint8)
    for y in range(20, 380, 40):
        many[y : y + 20, 20:380] = (0, 158, 115)
    other = many.copy()
    other[20:40, 20:40] = 255
    mean, worst = similarity(many, other)
    assert mean > 0.98 and worst < 0.6
