"""The benchmark networks, built in code as ONNX models with seeded random weights.

Every network is the published architecture, layer for layer, and nothing is downloaded.
``python -m benchmarks.models resnet50 -o resnet50.onnx`` writes one to a file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import onnx

from benchmarks.onnx_builder import Builder, Size

RESIDUAL_GAMMA = 0.5  # Damps the branch of a residual block, so that depth does not add up.


def mobilenet_v1(b: Builder, x: str) -> str:
    """MobileNet 1.0 (Howard et al., 2017)."""
    table = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    table += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    x = b.conv(x, 32, 3, stride=2)
    for channels, stride in table:
        x = b.depthwise(x, stride, "Relu")
        x = b.conv(x, channels, 1)
    return b.fc(b.global_pool(x), 1000)


def mobilenet_v2(b: Builder, x: str) -> str:
    """MobileNetV2 1.0 (Sandler et al., 2018)."""
    table = [  # Expansion, channels, repeats, stride.
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ]

    def inverted_residual(x: str, expansion: int, channels: int, stride: int) -> str:
        inputs = b.shapes[x][0]
        residual = stride == 1 and inputs == channels
        y = b.conv(x, expansion * inputs, 1, act="Clip6") if expansion > 1 else x
        y = b.depthwise(y, stride, "Clip6")
        y = b.conv(y, channels, 1, act=None, gamma=RESIDUAL_GAMMA if residual else 1)
        return b.add(x, y) if residual else y

    x = b.conv(x, 32, 3, stride=2, act="Clip6")
    for expansion, channels, repeats, stride in table:
        for i in range(repeats):
            x = inverted_residual(x, expansion, channels, stride if i == 0 else 1)
    x = b.conv(x, 1280, 1, act="Clip6")
    return b.fc(b.global_pool(x), 1000)


def squeezenet1_1(b: Builder, x: str) -> str:
    """SqueezeNet 1.1 (Iandola et al., 2016, and the authors' later revision)."""
    conv = partial(b.conv, bn=False)
    x = conv(x, 64, 3, stride=2, pad=0)
    for i, (squeeze, expand) in enumerate(
        [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    ):
        if i in (0, 2, 4):
            x = b.max_pool(x, 3, stride=2, ceil=True)
        x = conv(x, squeeze, 1)
        x = b.concat(conv(x, expand, 1), conv(x, expand, 3))
    return b.global_pool(conv(x, 1000, 1))


def _resnet(
    b: Builder, x: str, block: Callable[[Builder, str, int, int], str], depths: Sequence[int]
) -> str:
    x = b.max_pool(b.conv(x, 64, 7, stride=2), 3, stride=2, pad=1)
    for stage, depth in enumerate(depths):
        for i in range(depth):
            x = block(b, x, 64 << stage, 2 if stage > 0 and i == 0 else 1)
    return b.fc(b.global_pool(x), 1000)


def _residual(b: Builder, x: str, y: str, stride: int) -> str:
    if b.shapes[x] != b.shapes[y]:
        x = b.conv(x, b.shapes[y][0], 1, stride, act=None)
    return b.add(y, x, act="Relu")


def _basic_block(b: Builder, x: str, channels: int, stride: int) -> str:
    y = b.conv(x, channels, 3, stride)
    y = b.conv(y, channels, 3, act=None, gamma=RESIDUAL_GAMMA)
    return _residual(b, x, y, stride)


def _bottleneck(b: Builder, x: str, channels: int, stride: int) -> str:
    y = b.conv(x, channels, 1)
    y = b.conv(y, channels, 3, stride)
    y = b.conv(y, 4 * channels, 1, act=None, gamma=RESIDUAL_GAMMA)
    return _residual(b, x, y, stride)


def resnet18(b: Builder, x: str) -> str:
    """ResNet-18 (He et al., 2015)."""
    return _resnet(b, x, _basic_block, (2, 2, 2, 2))


def resnet50(b: Builder, x: str) -> str:
    """ResNet-50 v1.5, with the stride on the 3x3 convolution."""
    return _resnet(b, x, _bottleneck, (3, 4, 6, 3))


def vgg16(b: Builder, x: str) -> str:
    """VGG-16, configuration D (Simonyan and Zisserman, 2014)."""
    for channels, repeats in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]:
        for _ in range(repeats):
            x = b.conv(x, channels, 3, bn=False)
        x = b.max_pool(x, 2, stride=2)
    x = b.fc(b.flatten(x), 4096, act="Relu")
    return b.fc(b.fc(x, 4096, act="Relu"), 1000)


def inception_v3(b: Builder, x: str) -> str:
    """Inception v3 (Szegedy et al., 2015) as in torchvision, without the auxiliary head."""
    b.epsilon = 1e-3

    def tower(x: str, *layers: tuple[int, Size], stride: int = 1) -> str:
        """Chain (channels, kernel) convolutions; one with a stride is last and unpadded."""
        for channels, kernel in layers[:-1]:
            x = b.conv(x, channels, kernel)
        channels, kernel = layers[-1]
        return b.conv(x, channels, kernel, stride, pad=0 if stride > 1 else None)

    def pooled(x: str, channels: int) -> str:
        return b.conv(b.avg_pool(x, 3, stride=1, pad=1), channels, 1)

    def fork(x: str) -> str:
        return b.concat(b.conv(x, 384, (1, 3)), b.conv(x, 384, (3, 1)))

    def inception_a(x: str, pool_channels: int) -> str:
        return b.concat(
            tower(x, (64, 1)),
            tower(x, (48, 1), (64, 5)),
            tower(x, (64, 1), (96, 3), (96, 3)),
            pooled(x, pool_channels),
        )

    def reduction_b(x: str) -> str:
        return b.concat(
            tower(x, (384, 3), stride=2),
            tower(x, (64, 1), (96, 3), (96, 3), stride=2),
            b.max_pool(x, 3, stride=2),
        )

    def inception_c(x: str, c: int) -> str:
        row, column = (1, 7), (7, 1)
        return b.concat(
            tower(x, (192, 1)),
            tower(x, (c, 1), (c, row), (192, column)),
            tower(x, (c, 1), (c, column), (c, row), (c, column), (192, row)),
            pooled(x, 192),
        )

    def reduction_d(x: str) -> str:
        return b.concat(
            tower(x, (192, 1), (320, 3), stride=2),
            tower(x, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), stride=2),
            b.max_pool(x, 3, stride=2),
        )

    def inception_e(x: str) -> str:
        return b.concat(
            tower(x, (320, 1)),
            fork(tower(x, (384, 1))),
            fork(tower(x, (448, 1), (384, 3))),
            pooled(x, 192),
        )

    x = b.conv(x, 32, 3, stride=2, pad=0)
    x = b.conv(x, 32, 3, pad=0)
    x = b.max_pool(b.conv(x, 64, 3), 3, stride=2)
    x = b.conv(b.conv(x, 80, 1), 192, 3, pad=0)
    x = b.max_pool(x, 3, stride=2)
    for pool_channels in (32, 64, 64):
        x = inception_a(x, pool_channels)
    x = reduction_b(x)
    for channels in (128, 160, 160, 192):
        x = inception_c(x, channels)
    x = reduction_d(x)
    x = inception_e(inception_e(x))
    return b.fc(b.global_pool(x), 1000)


def bert_encoder(b: Builder, x: str) -> str:
    """Four layers of the BERT-base encoder (Devlin et al., 2018), on embedded tokens."""
    for _ in range(4):
        x = b.layer_norm(b.node("Add", b.attention(x, 12), x))
        hidden = b.gelu(b.linear(x, 3072))
        x = b.layer_norm(b.node("Add", b.linear(hidden, 768), x))
    return x


NETWORKS: dict[str, Callable[[Builder, str], str]] = {
    network.__name__: network
    for network in (
        mobilenet_v1,
        mobilenet_v2,
        squeezenet1_1,
        resnet18,
        resnet50,
        vgg16,
        inception_v3,
        bert_encoder,
    )
}

CONVOLUTIONAL = frozenset(NETWORKS) - {"bert_encoder"}


def input_shape(name: str, batch: int = 1, sequence: int = 128) -> tuple[int, ...]:
    """Shape of the input of a network; ``sequence`` matters only to transformers."""
    if name == "bert_encoder":
        return (batch, sequence, 768)
    size = 299 if name == "inception_v3" else 224
    return (batch, 3, size, size)


def build(
    name: str, *, batch: int | str = 1, sequence: int = 128, seed: int = 0
) -> onnx.ModelProto:
    """Build a benchmark network.

    Parameters
    ----------
    name : one of ``MODELS``.
    batch : a string makes it a symbolic dimension.
    sequence : number of tokens, for transformers.
    seed : of the weights.

    Returns
    -------
    The model; its metadata hold the number of ``parameters`` and, for one sample, of ``macs``.
    """
    b = Builder(name, seed)
    _, *shape = input_shape(name, sequence=sequence)
    transformer = name == "bert_encoder"
    x = b.input("hidden" if transformer else "input", batch, tuple(shape))
    y = NETWORKS[name](b, x)
    return b.finish(y, "output" if transformer else "logits", batch)


MODELS: dict[str, Callable[..., onnx.ModelProto]] = {
    name: partial(build, name) for name in NETWORKS
}


def main() -> None:
    """Write one network to a file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--batch", default="1", help="a number, or a name for a symbolic dimension")
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    batch = int(args.batch) if args.batch.isdecimal() else args.batch
    model = build(args.name, batch=batch, sequence=args.sequence, seed=args.seed)
    onnx.save(model, args.output)
    counts = {prop.key: int(prop.value) for prop in model.metadata_props}
    print(f"{args.output}: {counts['parameters']:,} parameters, {counts['macs']:,} MACs per sample")


if __name__ == "__main__":
    main()
