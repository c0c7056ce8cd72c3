"""How many images adder-run has in a batch."""

from __future__ import annotations

import argparse
import logging

from adder_onnx.evaluation.network import Network

__all__ = ["BATCH_SIZE", "choose_batch_size"]

BATCH_SIZE = 128
"""Where neither the user nor the model says it."""

_logger = logging.getLogger(__name__)


def choose_batch_size(options: argparse.Namespace, model: Network) -> int:
    """What the model is fixed to, else what the user says, else `BATCH_SIZE`."""
    fixed = model.batch_size
    if fixed is None:
        return int(options.batch_size or BATCH_SIZE)
    if options.batch_size not in (None, fixed):
        _logger.warning("the model takes batches of %d only: --batch-size is ignored", fixed)
    return fixed
