"""Networks for pictures, written for this table."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(4, outputs),
        nn.ELU(),
    )


class UNet(nn.Module):
    """Encoder, decoder and the connections between (Ronneberger et al., 2015)."""

    def __init__(self, widths: Sequence[int] = (8, 16, 32)) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.down = nn.ModuleList(conv_block(a, b) for a, b in zip(inputs, widths, strict=True))
        self.bottom = conv_block(widths[-1], 64)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in reversed(widths))
        self.join = nn.ModuleList(conv_block(2 * w, w) for w in reversed(widths))
        self.head = nn.Conv2d(widths[0], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for block in self.down:
            kept.append(block(x))
            x = F.max_pool2d(kept[-1], 2)
        x = self.bottom(x)
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], dim=1))
        return self.head(x)


class Generator(nn.Module):
    """DCGAN's generator (Radford et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 32, 16, 8)
        layers: list[nn.Module] = [nn.ConvTranspose2d(32, widths[0], 4, bias=False)]
        for a, b in pairwise(widths):
            layers += [nn.BatchNorm2d(a), nn.ReLU(), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 5, 2, 2, 1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z[:, :, None, None])


class SuperResolution(nn.Module):
    """ESPCN (Shi et al., 2016), beside a bicubic enlargement."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 5, padding=2)
        self.second = nn.Conv2d(32, 16, 3, padding=1)
        self.last = nn.Conv2d(16, 9, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.second(torch.tanh(self.first(x))))
        plain = F.interpolate(x, scale_factor=3, mode="bicubic", align_corners=False)
        return F.pixel_shuffle(self.last(y), 3) + plain


class StyleTransfer(nn.Module):
    """Reflected borders, instance normalisation and enlarging by copies (Johnson et al., 2016)."""

    def __init__(self) -> None:
        super().__init__()

        def layer(a: int, b: int, size: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.ReflectionPad2d(size // 2),
                nn.Conv2d(a, b, size, stride),
                nn.InstanceNorm2d(b, affine=True),
                nn.ReLU(),
            )

        self.head = nn.Sequential(layer(3, 8, 9), layer(8, 16, 3, 2), layer(16, 32, 3, 2))
        self.body = nn.ModuleList(nn.Sequential(layer(32, 32, 3), layer(32, 32, 3)) for _ in "ab")
        grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.tail = nn.Sequential(grow, layer(32, 16, 3), grow, layer(16, 8, 3), nn.Conv2d(8, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for block in self.body:
            x = x + block(x)
        return torch.sigmoid(self.tail(x))


class CapsuleNet(nn.Module):
    """Capsules with routing by agreement (Sabour et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 5)
        self.primary = nn.Conv2d(16, 32, 5, stride=2)
        self.routes = nn.Parameter(torch.randn(10, 8 * 64, 8, 4) * 0.3)

    @staticmethod
    def squash(s: Tensor) -> Tensor:
        square = (s**2).sum(-1, keepdim=True)
        return square / (1 + square) * s / torch.sqrt(square + 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(torch.relu(self.conv(x)))
        u = self.squash(y.reshape(x.shape[0], -1, 4, 8).flatten(1, 2).unflatten(1, (-1,)))
        votes = torch.einsum("bnd,kndo->bkno", u, self.routes[:, : u.shape[1]])
        logits = torch.zeros_like(votes[..., :1])
        for _ in range(3):
            out = self.squash((torch.softmax(logits, dim=1) * votes).sum(2, keepdim=True))
            logits = logits + (votes * out).sum(-1, keepdim=True)
        return out.squeeze(2).norm(dim=-1)


class SpatialTransformer(nn.Module):
    """A picture moved by an affine map that a small network chooses (Jaderberg et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 7), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 10, 5), nn.Hardswish()
        )
        self.where = nn.Linear(10, 6)
        self.read = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.where(self.features(x).mean((2, 3))).view(-1, 2, 3)
        theta = theta * 0.3 + torch.eye(2, 3)
        grid = F.affine_grid(theta, [x.shape[0], 1, 28, 28], align_corners=False)
        return self.read(F.grid_sample(x, grid, padding_mode="border", align_corners=False))


class YoloHead(nn.Module):
    """A one-stage detector: anchors, decoding, and non-maximum suppression in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.Mish(), nn.Conv2d(16, 32, 3, 2, 1), nn.Mish()
        )
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.head(self.body(x))[0].flatten(1).transpose(0, 1)
        boxes, scores = y[:, :4].sigmoid() * 16, y[:, 4]
        boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
        kept = torchvision.ops.nms(boxes, scores, 0.3)[:20]
        return boxes[kept], scores[kept]


class Nerf(nn.Module):
    """A radiance field along rays: positional code, layers, and compositing (Mildenhall, 2020)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(24, 32), nn.Softplus(), nn.Linear(32, 4))

    def forward(self, origins: Tensor, directions: Tensor) -> Tensor:
        depths = torch.linspace(0.1, 2.0, 16)
        points = origins[:, None] + directions[:, None] * depths[None, :, None]
        scaled = points[..., None] * (2.0 ** torch.arange(4))
        code = torch.cat([scaled.sin(), scaled.cos()], -1).flatten(-2)
        out = self.layers(code)
        alpha = 1 - torch.exp(-F.relu(out[..., 3]) * 0.1)
        clear = torch.exp(torch.cumsum(torch.log(1 - alpha + 1e-6), dim=-1))
        return ((alpha * clear)[..., None] * out[..., :3].sigmoid()).sum(1)


class DeformableNet(nn.Module):
    """A convolution whose samples lie where another says (Dai et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Conv2d(3, 27, 3, padding=1)
        self.conv = torchvision.ops.DeformConv2d(3, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        offsets, gates = self.where(x).split([18, 9], dim=1)
        return self.conv(x, offsets, torch.sigmoid(gates))


class Crnn(nn.Module):
    """Text lines read by convolutions and LSTMs (Shi et al., 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
            nn.Conv2d(32, 32, (8, 1)),
            nn.ReLU(),
        )
        self.lstm = nn.LSTM(32, 24, bidirectional=True)
        self.head = nn.Linear(48, 37)

    def forward(self, x: Tensor) -> Tensor:
        steps = self.conv(x).squeeze(2).permute(2, 0, 1)
        return F.log_softmax(self.head(self.lstm(steps)[0]), dim=-1)
