"""Networks for points, graphs, tables and fields, written for this table."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class PointNet(nn.Module):
    """A set of points, moved by a learned map and pooled by their maximum (Qi et al., 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.align = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU())
        self.map = nn.Linear(16, 9)
        self.points = nn.Sequential(nn.Conv1d(3, 32, 1), nn.BatchNorm1d(32), nn.ReLU())
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.map(self.align(x).amax(-1)).view(-1, 3, 3) + torch.eye(3)
        return self.head(self.points(torch.bmm(matrix, x)).amax(-1))


class GraphNet(nn.Module):
    """Messages along given edges, summed where they arrive (Kipf and Welling, 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 16)])
        self.head = nn.Linear(16, 3)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        for layer in self.layers:
            messages = layer(nodes)[source]
            total = torch.zeros(nodes.shape[0], 16).index_add(0, target, messages)
            degree = torch.zeros(nodes.shape[0]).index_add(
                0, target, torch.ones_like(target, dtype=torch.float32)
            )
            nodes = torch.relu(total / (degree[:, None] + 1))
        return self.head(nodes)


class Dlrm(nn.Module):
    """Recommendation: bags of embedded categories crossed with numbers (Naumov et al., 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(50, 16) for _ in range(3))
        self.bottom = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 16))
        self.top = nn.Sequential(nn.Linear(16 + 6, 16), nn.PReLU(), nn.Linear(16, 1))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        dense = self.bottom(numbers)
        bags = [t(categories[:, i]).mean(1) for i, t in enumerate(self.tables)]
        every = torch.stack([dense, *bags], dim=1)
        crossed = torch.bmm(every, every.transpose(1, 2))
        rows, columns = torch.tril_indices(4, 4, -1).unbind(0)
        return torch.sigmoid(self.top(torch.cat([dense, crossed[:, rows, columns]], dim=1)))


class Vae(nn.Module):
    """A variational autoencoder with its noise given as an input (Kingma and Welling, 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.SELU(), nn.Linear(32, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 32), nn.CELU(), nn.Linear(32, 64))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        mean, spread = self.encoder(x).chunk(2, dim=-1)
        z = mean + noise * torch.exp(0.5 * spread)
        loss = 0.5 * (mean**2 + spread.exp() - 1 - spread).sum(-1)
        return torch.sigmoid(self.decoder(z)), loss


class Fno(nn.Module):
    """A Fourier layer: weights on the low frequencies (Li et al., 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.real = nn.Parameter(torch.randn(8, 8, 6) * 0.1)
        self.imaginary = nn.Parameter(torch.randn(8, 8, 6) * 0.1)
        self.lift, self.point = nn.Conv1d(1, 8, 1), nn.Conv1d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        low = torch.view_as_real(torch.fft.rfft(x, dim=-1))[:, :, :6]
        a, b = low.unbind(-1)
        real = torch.einsum("bim,iom->bom", a, self.real) - torch.einsum(
            "bim,iom->bom", b, self.imaginary
        )
        imaginary = torch.einsum("bim,iom->bom", a, self.imaginary) + torch.einsum(
            "bim,iom->bom", b, self.real
        )
        angle = torch.arange(6)[:, None] * torch.arange(x.shape[-1])[None] * (2 * math.pi / 64)
        back = real @ angle.cos() - imaginary @ angle.sin()
        return F.gelu(back + self.point(x))
