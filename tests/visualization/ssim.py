"""Structural similarity (Wang, Bovik, Sheikh and Simoncelli, Image quality assessment, IEEE TIP 2004), written out for
comparing pictures."""

import numpy as np

WINDOW_PX, SIGMA_PX = 11, 1.5
BLOCK_PX = 32
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # K1, K2 and the range of 8 bits, section III.B


def gaussian() -> np.ndarray:
    """(11,) float64, sum 1: one side of the paper's circular-symmetric window."""
    offsets = np.arange(WINDOW_PX) - WINDOW_PX // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA_PX**2))
    return weights / weights.sum()


def windowed(values: np.ndarray) -> np.ndarray:
    """(H, W) -> (H - 10, W - 10) float64: weighed means over every window that lies inside."""
    weights = gaussian()
    rows = np.lib.stride_tricks.sliding_window_view(values, WINDOW_PX, axis=0) @ weights
    return np.lib.stride_tricks.sliding_window_view(rows, WINDOW_PX, axis=1) @ weights


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(H - 10, W - 10) float64, -1 to 1: equation 13 of two grey pictures (H, W), 0 to 255."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = windowed(a), windowed(b)
    variance_a, variance_b = windowed(a * a) - mean_a**2, windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    return (
        (2 * mean_a * mean_b + C1)
        * (2 * covariance + C2)
        / ((mean_a**2 + mean_b**2 + C1) * (variance_a + variance_b + C2))
    )


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """(mean SSIM, lowest mean of any block of 32 px) of two pictures (H, W, 3) uint8 over channels and the places where
    either is not blank.

    Blank paper is alike in all figures and would hide what changed; one wrong frame among many photos is seen in its
    block.
    """
    inked = np.zeros((a.shape[0] - WINDOW_PX + 1, a.shape[1] - WINDOW_PX + 1), bool)
    for picture in (a, b):
        windows = np.lib.stride_tricks.sliding_window_view(picture.min(axis=2), (WINDOW_PX, WINDOW_PX))
        inked |= windows.min(axis=(2, 3)) < 250
    if not inked.any():
        return 1.0, 1.0
    similarities = np.mean([ssim_map(a[..., channel], b[..., channel]) for channel in range(3)], axis=0)
    blocks = [
        similarities[y : y + BLOCK_PX, x : x + BLOCK_PX][inked[y : y + BLOCK_PX, x : x + BLOCK_PX]].mean()
        for y in range(0, inked.shape[0], BLOCK_PX)
        for x in range(0, inked.shape[1], BLOCK_PX)
        if inked[y : y + BLOCK_PX, x : x + BLOCK_PX].any()
    ]
    return float(similarities[inked].mean()), float(min(blocks))
