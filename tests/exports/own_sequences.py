"""Networks for words and sounds, written for this table."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class LstmTagger(nn.Module):
    """Two bidirectional LSTMs over embedded words, a label for each."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 24)
        self.lstm = nn.LSTM(24, 32, num_layers=2, bidirectional=True, batch_first=True)
        self.labels = nn.Linear(64, 9)

    def forward(self, words: Tensor) -> Tensor:
        return self.labels(self.lstm(self.words(words))[0])


class GruClassifier(nn.Module):
    """A GRU over embedded words, with its first and last state given and taken."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(100, 24)
        self.gru = nn.GRU(24, 32, num_layers=2)
        self.classes = nn.Linear(32, 5)

    def forward(self, words: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        out, state = self.gru(self.words(words).transpose(0, 1), state)
        return self.classes(out[-1]), state


class GreedyDecoder(nn.Module):
    """Sequence to sequence: an LSTM encoder, and an attending decoder that feeds on its answers."""

    def __init__(self, steps: int = 6) -> None:
        super().__init__()
        self.steps = steps
        self.words = nn.Embedding(60, 24)
        self.encoder = nn.GRU(24, 24, batch_first=True)
        self.cell = nn.GRUCell(48, 24)
        self.out = nn.Linear(24, 60)

    def forward(self, words: Tensor) -> tuple[Tensor, Tensor]:
        memory, state = self.encoder(self.words(words))
        state, token = state[0], words[:, 0]
        tokens, scores = [], []
        for _ in range(self.steps):
            weights = torch.softmax(torch.einsum("bd,btd->bt", state, memory), dim=-1)
            context = torch.einsum("bt,btd->bd", weights, memory)
            state = self.cell(torch.cat([self.words(token), context], dim=-1), state)
            score = self.out(state)
            token = score.argmax(dim=-1)
            tokens.append(token)
            scores.append(score)
        return torch.stack(tokens, 1), torch.stack(scores, 1)


@torch.jit.script
def recurrence(x: Tensor, weight: Tensor) -> Tensor:
    """As many steps as the input has; a state that grows too large is halved."""
    state = torch.zeros_like(x[:, 0])
    for step in range(x.shape[1]):
        state = torch.tanh(torch.matmul(state, weight) + x[:, step])
        if bool(state.abs().max() > 0.99):
            state = state * 0.5
    return state


class ScriptedLoop(nn.Module):
    """A loop and a condition that stay such in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 16) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return recurrence(x, self.weight)


class ConformerBlock(nn.Module):
    """Half feed-forward, attention, convolution, half feed-forward (Gulati et al., 2020)."""

    def __init__(self, width: int = 32, heads: int = 4) -> None:
        super().__init__()

        def feed_forward() -> nn.Sequential:
            return nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 64), nn.SiLU(), nn.Linear(64, width)
            )

        self.before, self.after = feed_forward(), feed_forward()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.conv_norm = nn.LayerNorm(width)
        self.conv = nn.Sequential(
            nn.Conv1d(width, 2 * width, 1),
            nn.GLU(dim=1),
            nn.Conv1d(width, width, 15, padding=7, groups=width),
            nn.BatchNorm1d(width),
            nn.SiLU(),
            nn.Conv1d(width, width, 1),
        )
        self.last = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.before(x)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.conv(self.conv_norm(x).transpose(1, 2)).transpose(1, 2)
        return self.last(x + 0.5 * self.after(x))


class Tcn(nn.Module):
    """Dilated causal convolutions with normalised weights (Bai et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.utils.parametrizations.weight_norm
        self.layers = nn.ModuleList(
            norm(nn.Conv1d(8 if i == 0 else 16, 16, 3, dilation=2**i)) for i in range(4)
        )
        self.skip = nn.Conv1d(8, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.skip(x)
        for i, layer in enumerate(self.layers):
            padded = F.pad(x, (2 << i, 0))
            x = torch.relu(layer(padded))
            y = y + x
        return y


class WaveNet(nn.Module):
    """Gated dilated convolutions, residuals and skips over coded audio (van den Oord, 2016)."""

    def __init__(self, width: int = 16, layers: int = 6) -> None:
        super().__init__()
        self.codes = nn.Embedding(64, width)
        self.gates = nn.ModuleList(
            nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(layers)
        )
        self.mixes = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.head = nn.Conv1d(width, 64, 1)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.codes(codes).transpose(1, 2)
        total = torch.zeros_like(x)
        for i, (gate, mix) in enumerate(zip(self.gates, self.mixes, strict=True)):
            a, b = gate(F.pad(x, (1 << i, 0))).chunk(2, dim=1)
            y = mix(torch.tanh(a) * torch.sigmoid(b))
            x, total = x + y, total + y
        return F.log_softmax(self.head(torch.relu(total)), dim=1)


class Transformer(nn.Module):
    """torch's own encoder and decoder, with both kinds of masks."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(80, 32)
        self.body = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
        self.head = nn.Linear(32, 80)

    def forward(self, source: Tensor, target: Tensor, keep: Tensor) -> Tensor:
        length = target.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        padding = keep == 0
        out = self.body(
            self.words(source) * math.sqrt(32),
            self.words(target) * math.sqrt(32),
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.head(out)


class EinsumAttention(nn.Module):
    """Attention with relative positions, every product an einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Parameter(torch.randn(3, 32, 4, 8) * 0.2)
        self.relative = nn.Parameter(torch.randn(4, 64, 8) * 0.2)
        self.out = nn.Parameter(torch.randn(4, 8, 32) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btd,dhe->bhte", x, w) for w in self.project.unbind(0))
        length = x.shape[1]
        distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
        bias = torch.einsum("bhte,htse->bhts", q, self.relative[:, distance.clamp(-31, 31) + 31])
        weights = torch.softmax((torch.einsum("bhte,bhse->bhts", q, k) + bias) / 8**0.5, dim=-1)
        return torch.einsum("bhte,hed->btd", torch.einsum("bhts,bhse->bhte", weights, v), self.out)


class Spectrogram(nn.Module):
    """Audio to log mel bands by torch.stft, then a convolution over time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(64))
        self.register_buffer("mel", torch.rand(33, 12))
        self.conv = nn.Conv1d(12, 16, 3)

    def forward(self, audio: Tensor) -> Tensor:
        parts = torch.stft(audio, 64, 16, window=self.window, return_complex=False)
        power = (parts**2).sum(-1).transpose(1, 2)
        return self.conv(torch.log(power @ self.mel + 1e-3).transpose(1, 2))


class MixtureOfExperts(nn.Module):
    """Each token goes to its two best experts, weighed by the gate."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.gate = nn.Linear(16, experts)
        self.up = nn.Parameter(torch.randn(experts, 16, 32) * 0.2)
        self.down = nn.Parameter(torch.randn(experts, 32, 16) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        best, chosen = self.gate(x).topk(2, dim=-1)
        weights = torch.zeros_like(self.gate(x)).scatter(-1, chosen, best.softmax(-1))
        hidden = F.gelu(torch.einsum("btd,edh->bteh", x, self.up))
        return torch.einsum("bteh,ehd,bte->btd", hidden, self.down, weights)


class XVector(nn.Module):
    """Time delays and statistics of a speaker (Snyder et al., 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = nn.Sequential(
            nn.Conv1d(12, 24, 5),
            nn.ReLU(),
            nn.BatchNorm1d(24),
            nn.Conv1d(24, 24, 3, dilation=2),
            nn.ReLU(),
            nn.BatchNorm1d(24),
        )
        self.out = nn.Linear(48, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.frames(x)
        mean, spread = y.mean(-1), y.std(-1)
        return F.normalize(self.out(torch.cat([mean, spread], dim=-1)), dim=-1)
