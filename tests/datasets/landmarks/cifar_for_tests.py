"""CIFAR-10 as it is published, with few photos."""

import pickle
from pathlib import Path

import numpy as np

CLASS_NAMES = ["airplane", "cat", "ship"]


def write_cifar10(folder: Path, n: int = 8, part: str = "python") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """CIFAR-10 in the published layout, with few photos: pixels (n, 3072) uint8 and labels of each file. Class c is
    bright in channel c."""
    draws, written = np.random.default_rng(5), {}
    place = folder / ("cifar-10-batches-py" if part == "python" else "cifar-10-batches-bin")
    place.mkdir(parents=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = np.arange(n) % len(CLASS_NAMES)
        data = draws.integers(0, 60, (n, 3, 1024), dtype=np.uint8)
        data[np.arange(n), labels] += 150
        data = data.reshape(n, 3072)
        written[name] = data, labels
        if part == "python":
            table = {b"batch_label": b"few", b"labels": labels.tolist(), b"data": data, b"filenames": [b"x.png"] * n}
            (place / name).write_bytes(pickle.dumps(table, protocol=2))
        else:
            (place / f"{name}.bin").write_bytes(
                np.concatenate([labels[:, None].astype(np.uint8), data], axis=1).tobytes()
            )
    if part == "python":
        (place / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASS_NAMES, "num_vis": 3072}, protocol=2))
    else:
        (place / "batches.meta.txt").write_text("\n".join(CLASS_NAMES) + "\n\n")
    return written
