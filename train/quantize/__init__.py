"""Weight quantizers, as frozen dataclasses, and what makes integers of a layer."""

from train.quantize.baselines import Binary, FixedPoint, Ternary
from train.quantize.clipq import ClipQ, Codebook, FixedGain
from train.quantize.segments import Segments

Quantizer = Codebook | FixedPoint
KINDS = (ClipQ, FixedGain, Segments, FixedPoint, Ternary, Binary)

__all__ = ["KINDS", "Codebook", "Quantizer", *(kind.__name__ for kind in KINDS)]
