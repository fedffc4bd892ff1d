"""Networks written for this table: parts that no library's model shows in this form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.exports import own_others, own_pictures, own_sequences
from tests.exports.architecture import (
    Architecture,
    Domain,
    Input,
    Sizes,
    Variant,
    ids,
    mask,
    uniform,
)


def own(
    name: str,
    build: Callable[[], Any],
    inputs: dict[str, Input],
    *sizes: Sizes,
    variants: Sequence[Variant] = (),
    domain: Domain = "other",
) -> Architecture:
    return Architecture(name, domain, build, inputs, sizes, variants=variants)


def at(**sizes: int) -> Sizes:
    return sizes


WORDS = {"words": Input("batch length", ids(60))}
LENGTHS = (at(batch=2, length=9), at(batch=1, length=14), at(batch=3, length=5))
SEQUENCE = {"x": Input("batch length 32")}
PICTURE = {"x": Input("batch 3 height width")}
PICTURES = (at(batch=2, height=32, width=32), at(batch=1, height=48, width=32))

MODULES = (
    own(
        "lstm tagger",
        own_sequences.LstmTagger,
        WORDS,
        *LENGTHS,
        variants=("dynamic int8",),
        domain="language",
    ),
    own(
        "gru classifier",
        own_sequences.GruClassifier,
        {**WORDS, "state": Input("2 batch 32")},
        *LENGTHS,
        domain="language",
    ),
    own("greedy seq2seq", own_sequences.GreedyDecoder, WORDS, *LENGTHS, domain="language"),
    own("scripted loop", own_sequences.ScriptedLoop, {"x": Input("batch length 16")}, *LENGTHS),
    own(
        "u-net",
        own_pictures.UNet,
        PICTURE,
        *PICTURES,
        variants=("float16", "static QDQ"),
        domain="vision",
    ),
    own(
        "dcgan generator",
        own_pictures.Generator,
        {"z": Input("batch 32")},
        at(batch=2),
        at(batch=5),
        variants=("float16",),
        domain="vision",
    ),
    own(
        "super-resolution",
        own_pictures.SuperResolution,
        {"x": Input("batch 1 height width", uniform)},
        *PICTURES,
        domain="vision",
    ),
    own("style transfer", own_pictures.StyleTransfer, PICTURE, *PICTURES, domain="vision"),
    own(
        "conformer block",
        own_sequences.ConformerBlock,
        SEQUENCE,
        *LENGTHS,
        variants=("float16", "dynamic int8"),
        domain="speech",
    ),
    own("tcn", own_sequences.Tcn, {"x": Input("batch 8 length")}, *LENGTHS, domain="speech"),
    own(
        "wavenet",
        own_sequences.WaveNet,
        {"codes": Input("batch length", ids(64))},
        *LENGTHS,
        domain="speech",
    ),
    own(
        "capsules",
        own_pictures.CapsuleNet,
        {"x": Input("batch 1 28 28", uniform)},
        at(batch=2),
        at(batch=1),
        domain="vision",
    ),
    own(
        "nn.Transformer",
        own_sequences.Transformer,
        {
            "source": Input("batch length", ids(80)),
            "target": Input("batch words", ids(80)),
            "keep": Input("batch length", mask),
        },
        at(batch=2, length=9, words=6),
        at(batch=3, length=12, words=4),
        domain="language",
    ),
    own("einsum attention", own_sequences.EinsumAttention, SEQUENCE, *LENGTHS, domain="language"),
    own(
        "spatial transformer",
        own_pictures.SpatialTransformer,
        {"x": Input("batch 1 height width")},
        *PICTURES,
        domain="vision",
    ),
    own(
        "stft front-end",
        own_sequences.Spectrogram,
        {"audio": Input("batch samples")},
        at(batch=2, samples=400),
        at(batch=1, samples=640),
        domain="speech",
    ),
    own(
        "yolo head with nms",
        own_pictures.YoloHead,
        {"x": Input("1 3 height width")},
        *PICTURES,
        domain="detection",
    ),
    own(
        "pointnet",
        own_others.PointNet,
        {"x": Input("batch 3 points")},
        at(batch=2, points=50),
        at(batch=1, points=77),
    ),
    own(
        "graph network",
        own_others.GraphNet,
        {"nodes": Input("nodes 8"), "edges": Input("2 edges", ids(10))},
        at(nodes=10, edges=30),
        at(nodes=14, edges=22),
    ),
    own(
        "dlrm",
        own_others.Dlrm,
        {"numbers": Input("batch 13"), "categories": Input("batch 3 4", ids(50))},
        at(batch=3),
        at(batch=7),
        variants=("dynamic int8",),
    ),
    own(
        "nerf",
        own_pictures.Nerf,
        {"origins": Input("rays 3"), "directions": Input("rays 3")},
        at(rays=6),
        at(rays=11),
        domain="vision",
    ),
    own(
        "mixture of experts",
        own_sequences.MixtureOfExperts,
        {"x": Input("batch length 16")},
        *LENGTHS,
        domain="language",
    ),
    own(
        "vae",
        own_others.Vae,
        {"x": Input("batch 64", uniform), "noise": Input("batch 8")},
        at(batch=2),
        at(batch=5),
    ),
    own("deformable convolution", own_pictures.DeformableNet, PICTURE, *PICTURES, domain="vision"),
    own(
        "crnn",
        own_pictures.Crnn,
        {"x": Input("batch 1 32 width")},
        at(batch=2, width=64),
        at(batch=1, width=100),
        domain="vision",
    ),
    own(
        "x-vector",
        own_sequences.XVector,
        {"x": Input("batch 12 frames")},
        at(batch=2, frames=40),
        at(batch=1, frames=63),
        domain="speech",
    ),
    own("fourier operator", own_others.Fno, {"x": Input("batch 1 64")}, at(batch=2), at(batch=3)),
)
