"""Detection: torchvision and transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torchvision
import transformers
from torch import Tensor, nn

from tests.exports.architecture import Architecture, Input, uniform

PICTURE = {"image": Input("3 height width", uniform)}
SIZES = ({"height": 96, "width": 96}, {"height": 96, "width": 128})
CLASSES = 4


class Detector(nn.Module):
    """torchvision's detectors take a list of pictures; here it is one."""

    def __init__(self, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.detector = build()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found: list[dict[str, Tensor]] = self.detector([image])
        return found[0]


def detector(name: str, **options: Any) -> Architecture:
    """A detector of torchvision that keeps few candidates, for pictures of about its own size."""
    build = partial(
        torchvision.models.get_model,
        name,
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        **options,
    )
    return Architecture(name, "detection", partial(Detector, build), PICTURE, SIZES)


RESIZED = {"min_size": 96, "max_size": 160}
TWO_STAGES = {
    **RESIZED,
    "rpn_pre_nms_top_n_test": 60,
    "rpn_post_nms_top_n_test": 20,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 10,
}
ONE_STAGE = {"score_thresh": 0.0, "topk_candidates": 30, "detections_per_img": 10}


def resnet() -> Any:
    return transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 32, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage4"],
    )


def detr() -> Any:
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=resnet(),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        num_queries=12,
    )
    return transformers.DetrForObjectDetection(config)


def yolos() -> Any:
    config = transformers.YolosConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=[64, 64],
        patch_size=16,
        num_detection_tokens=8,
    )
    return transformers.YolosForObjectDetection(config)


def rt_detr() -> Any:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=16,
        hidden_sizes=[16, 24, 32, 48],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_hidden_dim=32,
        encoder_in_channels=[24, 32, 48],
        feat_strides=[8, 16, 32],
        encoder_ffn_dim=64,
        d_model=32,
        num_queries=12,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=64,
        decoder_layers=2,
        decoder_attention_heads=4,
        encoder_attention_heads=4,
        with_box_refine=True,
    )
    return transformers.RTDetrForObjectDetection(config)


def hf_detector(name: str, build: Callable[[], Any], dims: str, *sizes: Any) -> Architecture:
    return Architecture(
        name, "detection", build, {"pixel_values": Input(dims)}, sizes, by_name=True
    )


DETECTION = (
    detector("ssdlite320_mobilenet_v3_large", **ONE_STAGE),
    detector("ssd300_vgg16", **ONE_STAGE),
    detector("retinanet_resnet50_fpn", **RESIZED, **ONE_STAGE),
    detector("fcos_resnet50_fpn", **RESIZED, **ONE_STAGE),
    detector("fasterrcnn_mobilenet_v3_large_320_fpn", **TWO_STAGES),
    detector("maskrcnn_resnet50_fpn", **TWO_STAGES),
    detector("keypointrcnn_resnet50_fpn", **TWO_STAGES),
    hf_detector("detr", detr, "batch 3 64 64", {"batch": 2}, {"batch": 1}),
    hf_detector("yolos", yolos, "batch 3 64 64", {"batch": 2}, {"batch": 1}),
    hf_detector("rt-detr", rt_detr, "batch 3 64 64", {"batch": 2}, {"batch": 1}),
)
