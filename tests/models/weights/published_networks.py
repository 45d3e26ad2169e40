"""The networks of published checkpoints, written plainly from their papers, with the layers named as in the authors'
files."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def named(**layers: nn.Module) -> nn.Module:
    """A module that only holds layers under names."""
    holder = nn.Module()
    for name, layer in layers.items():
        holder.add_module(name, layer)
    return holder


def gem(maps: Tensor, p: float) -> Tensor:
    """(B, C, h, w) -> (B, C)."""
    return (maps.clamp(min=1e-6) ** p).mean((2, 3)) ** (1 / p)


class PyclsResNet(nn.Module):
    """ResNet-50 in pycls' names: stem.conv, stem.bn, s1.b1.f.a, .a_bn ... .c_bn, proj, bn."""

    DEPTHS = (3, 4, 6, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stem = named(conv=nn.Conv2d(3, 64, 7, 2, 3, bias=False), bn=nn.BatchNorm2d(64))
        n_in = 64
        for i, depth in enumerate(self.DEPTHS):
            stage, width = nn.Module(), 64 * 2**i
            for j in range(depth):
                stride = 2 if i and not j else 1
                layers = named(
                    a=nn.Conv2d(n_in, width, 1, bias=False),
                    a_bn=nn.BatchNorm2d(width),
                    b=nn.Conv2d(width, width, 3, stride, 1, bias=False),
                    b_bn=nn.BatchNorm2d(width),
                    c=nn.Conv2d(width, 4 * width, 1, bias=False),
                    c_bn=nn.BatchNorm2d(4 * width),
                )
                block = named(f=layers)
                if not j:
                    block.proj, block.bn = nn.Conv2d(n_in, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
                stage.add_module(f"b{j + 1}", block)
                n_in = 4 * width
            self.add_module(f"s{i + 1}", stage)

    def maps(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) BGR -> (B, 2048, H/32, W/32)."""
        x = F.max_pool2d(F.relu(self.stem.bn(self.stem.conv(x))), 3, 2, 1)
        for stage in (self.s1, self.s2, self.s3, self.s4):
            for block in stage.children():
                f = block.f
                inside = f.c_bn(f.c(F.relu(f.b_bn(f.b(F.relu(f.a_bn(f.a(x))))))))
                x = F.relu(inside + (block.bn(block.proj(x)) if hasattr(block, "proj") else x))
        return x


class PublishedCfcd(nn.Module):
    """globalmodel, fc, bn; and the classifier, of which a descriptor knows nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.bn, self.globalmodel = nn.Linear(2048, 512), nn.BatchNorm1d(512), PyclsResNet()
        self.desc_cls = named(fc=nn.Linear(512, 7, bias=False))

    def forward(self, bgr: Tensor) -> Tensor:
        return F.normalize(self.bn(self.fc(gem(self.globalmodel.maps(bgr), 3.0))), dim=1)


class PublishedSenet(PyclsResNet):
    """Stages, SSM, head.fc. Self-similarity over a window of 7, encoded by three blocks of 3 x 3 in the window, as 3-D
    convolutions."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Conv3d(256, 256, (1, 3, 3)), nn.BatchNorm3d(256), nn.ReLU()) for _ in range(3)]
        out = nn.Sequential(nn.Conv2d(256, 2048, 1), nn.BatchNorm2d(2048))
        ffn = nn.Sequential(nn.Conv2d(2048, 2048, 1), nn.ReLU(), nn.Conv2d(2048, 2048, 1))
        self.SSM = named(
            ch_reduction_encoder=nn.Conv2d(2048, 256, 1, bias=False),
            SSE=named(conv_in=nn.Sequential(*blocks), conv1x1_out=out),
            FFN=ffn,
        )
        self.head = named(fc=nn.Linear(2048, 2048))

    def forward(self, bgr: Tensor) -> Tensor:
        maps, ssm = self.maps(bgr), self.SSM
        reduced = F.normalize(ssm.ch_reduction_encoder(maps), dim=1)
        n, channels, height, width = reduced.shape
        padded = F.pad(reduced, (3, 3, 3, 3))
        similar = torch.zeros(n, channels, height * width, 7, 7)
        for y in range(height):
            for x in range(width):
                similar[:, :, y * width + x] = (
                    padded[:, :, y : y + 7, x : x + 7] * reduced[:, :, y, x, None, None]
                ).clamp(min=0)
        encoded = ssm.SSE.conv_in(similar).mean((3, 4)).view(n, channels, height, width)
        joined = ssm.FFN(maps + ssm.SSE.conv1x1_out(encoded))
        return F.normalize(self.head.fc(gem(joined, 3.0)), dim=1)


class PublishedCirtorch(nn.Module):
    """features (a torchvision network's layers by number), pool.p, whiten; on RGB."""

    def __init__(self, architecture: str, pooling: str, whitening: bool) -> None:
        import torchvision

        super().__init__()
        network = getattr(torchvision.models, architecture)(weights=None)
        layers = (
            list(network.children())[:-2]
            if architecture.startswith("resnet")
            else [*network.features.children(), nn.ReLU()]
        )
        self.features, self.pooling = nn.Sequential(*layers), pooling
        dim = 512 if architecture == "resnet18" else 1024
        exponents = {"gem": 2.9 * torch.ones(1), "gemmp": torch.linspace(1.5, 5.0, dim)}
        self.pool = nn.Module()
        if pooling in exponents:
            self.pool.p = nn.Parameter(exponents[pooling])
        self.whiten = nn.Linear(dim, dim) if whitening else None
        self.meta = {
            "architecture": architecture,
            "local_whitening": False,
            "pooling": pooling,
            "regional": False,
            "whitening": whitening,
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "outputdim": dim,
        }

    def forward(self, rgb: Tensor) -> Tensor:
        maps = self.features(rgb)
        if self.pooling == "mac":
            pooled = maps.amax((2, 3))
        elif self.pooling == "spoc":
            pooled = maps.mean((2, 3))
        else:
            p = self.pool.p.view(-1, 1, 1)
            pooled = (maps.clamp(min=1e-6) ** p).mean((2, 3)) ** (1 / self.pool.p)
        unit = pooled / (pooled.norm(dim=1, keepdim=True) + 1e-6)
        if self.whiten is None:
            return unit
        whitened = self.whiten(unit)
        return whitened / (whitened.norm(dim=1, keepdim=True) + 1e-6)
