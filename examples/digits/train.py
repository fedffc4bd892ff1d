"""Train a small convolutional network on handwritten digits and export it to ONNX.

Needs three packages that the project itself does not depend on::

    pip install torch scikit-learn onnx

Running the script writes ``digits.onnx`` and ``heldout.npz`` next to it (or into ``--output``).
It fits the network on four fifths of scikit-learn's digits, prints the accuracy on the other
fifth and takes about a minute on one processor core.
"""

from __future__ import annotations

import argparse
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

SEED = 20
THREADS = 1  # Layers this small gain nothing from more, and rounding would depend on the number.
CLASSES = 10
PIXEL_MAX = 16
HELD_OUT_SHARE = 0.2
OPSET = 17


@dataclass(frozen=True)
class Settings:
    """How the network is trained.

    Parameters
    ----------
    epochs : passes over the training images.
    batch_size : images per optimiser step.
    learning_rate : peak of the one-cycle schedule (a short warm-up, then a cosine down to zero).
    weight_decay : of AdamW, decoupled.
    label_smoothing : share of each target that is spread evenly over all classes.
    max_shift : largest shift, in pixels along either axis, that augmentation applies.
    """

    epochs: int = 80
    batch_size: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    max_shift: int = 1


class SeparableBlock(nn.Module):
    """A depthwise 3x3 convolution, then a pointwise one; a shortcut where the shapes are the same.

    Parameters
    ----------
    inputs, outputs : channels that come in and go out.
    stride : of the depthwise convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(),
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU6(),
        )
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, features: Tensor) -> Tensor:
        """Apply the block to a batch of feature maps."""
        result = self.pointwise(self.depthwise(features))
        return features + result if self.has_shortcut else result


class DigitNet(nn.Module):
    """Depthwise-separable network from (batch, 1, 8, 8) images to (batch, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
        )
        self.blocks = nn.Sequential(
            SeparableBlock(32, 64),
            SeparableBlock(64, 64),
            SeparableBlock(64, 128, stride=2),
            SeparableBlock(128, 128),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(128, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Return one logit per class and image."""
        features = self.pool(self.blocks(self.stem(image)))
        return self.classifier(torch.flatten(features, 1))


@dataclass(frozen=True)
class Digits:
    """Images and their labels.

    Parameters
    ----------
    images : (n, 8, 8) uint8, 0 to 16.
    labels : (n,) uint8, 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return what the network takes: images scaled to 0..1, and integer labels."""
        images = torch.from_numpy(self.images).float().div(PIXEL_MAX).unsqueeze(1)
        return images, torch.from_numpy(self.labels).long()


def load_split(seed: int = SEED) -> tuple[Digits, Digits]:
    """The training part and the held-out part, with every class in the same proportion."""
    source = load_digits()
    train_images, held_images, train_labels, held_labels = train_test_split(
        source.images.astype(np.uint8),
        source.target.astype(np.uint8),
        test_size=HELD_OUT_SHARE,
        stratify=source.target,
        random_state=seed,
    )
    return Digits(train_images, train_labels), Digits(held_images, held_labels)


def shift_randomly(images: Tensor, max_shift: int) -> Tensor:
    """Move every image by its own random number of pixels along each axis; background comes in.

    images : (n, 1, height, width), as the result.
    """
    count, _, height, width = images.shape
    padded = functional.pad(images, [max_shift] * 4)
    tops, lefts = torch.randint(0, 2 * max_shift + 1, (2, count))
    rows = tops[:, None, None] + torch.arange(height)[:, None]
    columns = lefts[:, None, None] + torch.arange(width)
    return padded[torch.arange(count)[:, None, None], 0, rows, columns].unsqueeze(1)


def train(digits: Digits, settings: Settings, seed: int = SEED) -> DigitNet:
    """Fit a network; the weights after the last epoch are the result, in evaluation mode.

    Parameters
    ----------
    seed : of the initial weights, the batch order and the augmentation.
    """
    torch.manual_seed(seed)
    images, labels = digits.tensors()
    network = DigitNet()
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=settings.learning_rate,
        epochs=settings.epochs,
        steps_per_epoch=math.ceil(len(labels) / settings.batch_size),
        pct_start=0.1,
    )
    loss_of = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    network.train()
    for _ in range(settings.epochs):
        for chosen in torch.randperm(len(labels)).split(settings.batch_size):
            logits = network(shift_randomly(images[chosen], settings.max_shift))
            optimiser.zero_grad()
            loss_of(logits, labels[chosen]).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def count_correct(network: DigitNet, digits: Digits) -> int:
    """How many images have their label as the most likely class."""
    images, labels = digits.tensors()
    with torch.inference_mode():
        return int((network(images).argmax(dim=1) == labels).sum())


def export(network: DigitNet, path: Path) -> None:
    """Write the network, with a softmax at its end, as one ONNX file.

    ``TrainingMode.PRESERVE`` leaves the network in the evaluation mode it is in, but skips the
    exporter's fusion of batch normalisation into convolutions: the file keeps the
    ``BatchNormalization`` nodes, so a runtime has something to fold.
    """
    classifier = nn.Sequential(OrderedDict(network=network, softmax=nn.Softmax(dim=1)))
    torch.onnx.export(
        classifier.eval(),
        (torch.zeros(1, 1, 8, 8),),
        path,
        dynamo=False,
        opset_version=OPSET,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
        input_names=["image"],
        output_names=["probabilities"],
        dynamic_axes={"image": {0: "batch"}, "probabilities": {0: "batch"}},
    )


def main() -> None:
    """Train, report the held-out accuracy, and write both files."""
    parser = argparse.ArgumentParser(description="Train the digit classifier and export it.")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).resolve().parent,
        help="folder for digits.onnx and heldout.npz (default: this script's)",
    )
    output: Path = parser.parse_args().output
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(mode=True)

    training, held_out = load_split()
    network = train(training, Settings())
    correct, total = count_correct(network, held_out), len(held_out.labels)
    print(f"held-out accuracy: {correct / total:.2%} ({correct} of {total})")

    output.mkdir(parents=True, exist_ok=True)
    export(network, output / "digits.onnx")
    np.savez_compressed(output / "heldout.npz", images=held_out.images, labels=held_out.labels)


if __name__ == "__main__":
    main()
