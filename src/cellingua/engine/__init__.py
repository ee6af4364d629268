"""Level 1: exact gradients of large contrastive batches, for any towers; needs torch and nothing else of cellingua."""

from cellingua.engine.direct import direct
from cellingua.engine.divide_conquer import divide_conquer
from cellingua.engine.gradcheck import gradcheck, gradient_error
from cellingua.engine.losses import InfoNCE, MultiPositive, NTXent
from cellingua.engine.processes import Processes, gather_rows, reduce_gradients
from cellingua.engine.step import StepResult
from cellingua.engine.tiles import tiled_contrast

__all__ = [
    "InfoNCE",
    "MultiPositive",
    "NTXent",
    "Processes",
    "StepResult",
    "direct",
    "divide_conquer",
    "gather_rows",
    "gradcheck",
    "gradient_error",
    "reduce_gradients",
    "tiled_contrast",
]
