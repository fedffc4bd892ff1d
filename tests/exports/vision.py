"""Classification, segmentation, video and flow: torchvision, timm and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import timm
import torchvision
import transformers

from tests.exports.architecture import Architecture, Input, Sizes, Variant, ids, mask

CLASSES = 10
PICTURE = {"x": Input("batch 3 height width")}
PICTURES: Sequence[Sizes] = (
    {"batch": 2, "height": 64, "width": 64},
    {"batch": 1, "height": 96, "width": 64},
    {"batch": 3, "height": 64, "width": 64},
)
FIXED = {"x": Input("batch 3 64 64")}
BATCHES: Sequence[Sizes] = ({"batch": 2}, {"batch": 1}, {"batch": 3})


def classifier(name: str, *variants: Variant, **options: Any) -> Architecture:
    """A torchvision classifier that takes pictures of any size."""
    build = partial(
        torchvision.models.get_model, name, weights=None, num_classes=CLASSES, **options
    )
    return Architecture(name, "vision", build, PICTURE, PICTURES, variants=variants)


def fixed(name: str, size: int = 64, **options: Any) -> Architecture:
    """A torchvision classifier for pictures of one size."""
    build = partial(
        torchvision.models.get_model, name, weights=None, num_classes=CLASSES, **options
    )
    inputs = {"x": Input(f"batch 3 {size} {size}")}
    return Architecture(name, "vision", build, inputs, BATCHES)


def segmentation(name: str) -> Architecture:
    build = partial(
        torchvision.models.get_model,
        name,
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
    )
    return Architecture(name, "vision", build, PICTURE, PICTURES)


def video(name: str) -> Architecture:
    build = partial(torchvision.models.get_model, name, weights=None, num_classes=CLASSES)
    inputs = {"x": Input("batch 3 frames height width")}
    sizes = (
        {"batch": 2, "frames": 8, "height": 48, "width": 48},
        {"batch": 1, "frames": 12, "height": 48, "width": 64},
    )
    return Architecture(name, "vision", build, inputs, sizes)


def timm_classifier(
    name: str, *variants: Variant, size: int | None = None, **options: Any
) -> Architecture:
    """A timm classifier, for any size unless one is given."""
    build = partial(timm.create_model, name, pretrained=False, num_classes=CLASSES, **options)
    if size is None:
        return Architecture(f"timm {name}", "vision", build, PICTURE, PICTURES, variants=variants)
    build = partial(build, img_size=size)
    inputs = {"x": Input(f"batch 3 {size} {size}")}
    return Architecture(f"timm {name}", "vision", build, inputs, BATCHES, variants=variants)


def small_vit() -> Any:
    return torchvision.models.VisionTransformer(64, 16, 3, 4, 64, 128, num_classes=CLASSES)


def small_maxvit() -> Any:
    return torchvision.models.MaxVit(
        input_size=(64, 64),
        stem_channels=16,
        partition_size=2,
        block_channels=[16, 32],
        block_layers=[2, 2],
        head_dim=16,
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    )


def raft() -> Any:
    return torchvision.models.optical_flow.raft_small(weights=None)


SMALL = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
"""What every transformer of a few layers has in its configuration."""


def hf_vision(
    name: str,
    model: str,
    config: Any,
    inputs: Any = None,
    sizes: Any = None,
    variants: Sequence[Variant] = (),
) -> Architecture:
    """A model of transformers that reads ``pixel_values``."""
    build = lambda: getattr(transformers, model)(config())  # noqa: E731
    inputs = inputs or {"pixel_values": Input("batch 3 64 64")}
    return Architecture(name, "vision", build, inputs, sizes or BATCHES, True, variants)


def clip() -> Any:
    return transformers.CLIPConfig(
        text_config={
            **SMALL,
            "vocab_size": 120,
            "max_position_embeddings": 40,
            "eos_token_id": 119,
            "bos_token_id": 118,
            "pad_token_id": 1,
        },
        vision_config={**SMALL, "image_size": 64, "patch_size": 16},
        projection_dim=32,
        return_loss=False,
    )


VISION = (
    fixed("alexnet", 224),
    fixed("vgg11_bn", 224),
    classifier("resnet18", "float16", "static QDQ", "dynamic int8"),
    classifier("resnet50"),
    classifier("resnext50_32x4d"),
    classifier("densenet121"),
    Architecture(
        "inception_v3",
        "vision",
        partial(
            torchvision.models.inception_v3,
            weights=None,
            aux_logits=False,
            num_classes=CLASSES,
            init_weights=False,
        ),
        PICTURE,
        ({"batch": 2, "height": 96, "width": 96}, {"batch": 1, "height": 128, "width": 96}),
    ),
    classifier("googlenet", aux_logits=False, init_weights=False),
    classifier("mobilenet_v2", "float16", "static QDQ"),
    classifier("mobilenet_v3_small", "static QDQ"),
    classifier("shufflenet_v2_x0_5"),
    classifier("squeezenet1_1", "float16"),
    classifier("efficientnet_b0"),
    classifier("regnet_y_400mf"),
    classifier("mnasnet0_5"),
    classifier("convnext_tiny"),
    classifier("swin_t"),
    fixed("swin_v2_t"),
    Architecture("vit", "vision", small_vit, FIXED, BATCHES, variants=("dynamic int8",)),
    Architecture("maxvit", "vision", small_maxvit, FIXED, BATCHES),
    segmentation("deeplabv3_mobilenet_v3_large"),
    segmentation("fcn_resnet50"),
    segmentation("lraspp_mobilenet_v3_large"),
    video("r3d_18"),
    video("s3d"),
    Architecture(
        "raft_small",
        "vision",
        raft,
        {"image1": Input("batch 3 128 128"), "image2": Input("batch 3 128 128")},
        ({"batch": 1}, {"batch": 2}),
    ),
    timm_classifier("ghostnet_050"),
    timm_classifier("mixer_s32_224", size=64),
    timm_classifier("repvgg_a0", "static QDQ"),
    timm_classifier("mobilenetv4_conv_small"),
    timm_classifier("poolformer_s12"),
    timm_classifier("xcit_nano_12_p16_224", size=64),
    timm_classifier("edgenext_xx_small"),
    timm_classifier("convmixer_768_32", depth=4, dim=64),
    timm_classifier("fastvit_t8"),
    timm_classifier("pvt_v2_b0"),
    timm_classifier("tiny_vit_5m_224", size=64),
    hf_vision(
        "segformer",
        "SegformerForSemanticSegmentation",
        lambda: transformers.SegformerConfig(
            hidden_sizes=[16, 32, 48, 64],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 3, 4],
            decoder_hidden_size=32,
            num_labels=CLASSES,
        ),
        {"pixel_values": Input("batch 3 height width")},
        PICTURES,
    ),
    hf_vision(
        "mobilevit",
        "MobileViTForImageClassification",
        lambda: transformers.MobileViTConfig(
            hidden_sizes=[48, 64, 80],
            neck_hidden_sizes=[8, 16, 24, 32, 40, 160],
            num_labels=CLASSES,
            image_size=64,
        ),
    ),
    hf_vision(
        "beit",
        "BeitForImageClassification",
        lambda: transformers.BeitConfig(
            **SMALL, image_size=64, num_labels=CLASSES, use_relative_position_bias=True
        ),
    ),
    hf_vision(
        "dinov2",
        "Dinov2Model",
        lambda: transformers.Dinov2Config(
            hidden_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=16
        ),
    ),
    hf_vision(
        "convnextv2",
        "ConvNextV2ForImageClassification",
        lambda: transformers.ConvNextV2Config(
            hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], num_labels=CLASSES
        ),
        {"pixel_values": Input("batch 3 height width")},
        PICTURES,
    ),
    hf_vision(
        "clip",
        "CLIPModel",
        clip,
        {
            "input_ids": Input("texts length", ids(118, 2)),
            "pixel_values": Input("batch 3 64 64"),
            "attention_mask": Input("texts length", mask),
        },
        ({"texts": 3, "length": 12, "batch": 2}, {"texts": 2, "length": 17, "batch": 1}),
    ),
    hf_vision(
        "siglip vision",
        "SiglipVisionModel",
        lambda: transformers.SiglipVisionConfig(**SMALL, image_size=64, patch_size=16),
        variants=("float16",),
    ),
)
