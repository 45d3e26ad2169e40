"""Every registered network as ONNX, held against torch: the table of docs/exchange.md.

Each network is written twice, with one scale and with three, for photos of any size, and describes photos of three
sizes by onnxruntime. Networks have random weights and small forms (thin, or over small backbones); --full takes them as
published, which takes half an hour of one core: rows are printed as they are done, and --only takes the networks that
are left.

    python examples/exported_networks.py [--only gem dalg] [--full]
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
import timm
import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.models import MODELS, create_model
from ultron_cli.models.weights.checkpoints import LoadedModel, sha256_of_weights
from ultron_cli.retrieval.extraction.describe import describe
from ultron_cli.retrieval.networks.exporting import ExportRequest, export_network

SIDES_PX = ((160, 224), (131, 197), (96, 288))  # (H, W)
SCALES = ((1.0,), (0.7071, 1.0, 1.4142))
THIN_ULTRON = {"depths": [1, 1, 2, 1], "widths": [16, 24, 32, 64], "heads": [2, 4], "expansion": 2}
SMALL: dict[str, dict[str, object]] = {
    "adapted": {"base": {"name": "gem", "backbone": "test_resnet"}, "descriptor_dim": 24},
    "cfcd-r50": {"backbone": "test_resnet", "descriptor_dim": 24},
    "dalg": {"dim": 24, "n_heads": 3, "descriptor_dim": 24},
    "dolg-r50": {"backbone": "test_resnet", "atrous_dim": 6, "local_dim": 10, "descriptor_dim": 24},
    "gem": {"backbone": "test_resnet", "descriptor_dim": 24},
    "gem (EfficientNet)": {"backbone": "test_efficientnet"},
    "gem (ViT)": {"backbone": "test_vit"},
    "senet-r50": {"backbone": "test_resnet", "descriptor_dim": 24, "similarity_dim": 8},
    "superglobal": {"backbone": "test_resnet", "descriptor_dim": 24},
    "ultron-t": THIN_ULTRON,
}
SWIN = "swin_small_patch4_window7_224"
SMALL_SWIN = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}


def networks(only: list[str], full: bool) -> Iterator[tuple[str, LoadedModel]]:
    """Named networks with random weights, of which normalisation has statistics that are not the first ones."""
    made_by_timm = timm.create_model
    if not full:
        timm.create_model = lambda name, **options: made_by_timm(
            name, **options, **(SMALL_SWIN if name == SWIN else {})
        )
    for name in only or (MODELS if full else SMALL):
        torch.manual_seed(0)
        model = create_model(name.split(" ")[0], **({} if full else SMALL[name]))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        yield name, LoadedModel(model, sha256_of_weights(model), {"kind": "untrained", "seed": 0})


def photo(height: int, width: int) -> torch.Tensor:
    """(1, 3, H, W) uint8: a smooth picture, as photos are."""
    small = torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(height))
    return (255 * F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)).to(torch.uint8)


def cosine(file: Path, loaded: LoadedModel, scales: tuple[float, ...], sides: tuple[int, int]) -> float:
    """Of the file's descriptor with torch's, for a photo of these sides."""
    images = photo(*sides)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (descriptors,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        right = describe(loaded.model, images.permute(0, 2, 3, 1), scales)
    return float(F.cosine_similarity(torch.from_numpy(descriptors).double(), right.double()))


def row(name: str, loaded: LoadedModel, folder: Path) -> str:
    """A line of the table."""
    cells, domains, started_s = [], set(), time.perf_counter()
    for scales in SCALES:
        file = folder / "network.onnx"
        export_network(loaded, ExportRequest(format="onnx", scales=scales), file)
        least = min(cosine(file, loaded, scales, sides) for sides in SIDES_PX)
        model = onnx.load(file)
        domains |= {node.domain for node in model.graph.node} | {entry.domain for entry in model.opset_import}
        cells.append(f"{least:.8f}")
    names = ", ".join(sorted(domain or "ai.onnx" for domain in domains))
    return f"| {name} | {' | '.join(cells)} | {names} | {time.perf_counter() - started_s:.0f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Every registered network as ONNX, held against torch.")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="networks (all)")
    parser.add_argument("--full", action="store_true", help="the networks as published instead of small forms")
    options = parser.parse_args()
    print("| network | least cosine, one scale | three scales | operators of | written in |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, loaded in networks(options.only, options.full):
            print(row(name, loaded, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
