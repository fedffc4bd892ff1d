"""Importers of losses and optimiser steps."""

from __future__ import annotations

from mnnpy.converter.importers.base import Row, direct
from mnnpy.runtime.ops import loss, training

_DOMAIN = training.Optimizer.domain

ROWS: tuple[Row, ...] = (
    Row("NegativeLogLikelihoodLoss", 12, direct(loss.NegativeLogLikelihoodLoss)),
    Row("SoftmaxCrossEntropyLoss", 12, direct(loss.SoftmaxCrossEntropyLoss)),
    Row("Adagrad", 1, direct(training.Adagrad), _DOMAIN),
    Row("Adam", 1, direct(training.Adam), _DOMAIN),
    Row("Momentum", 1, direct(training.Momentum), _DOMAIN),
)
