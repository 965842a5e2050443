"""Weight quantizers by name, for tables and ablations. All of them run with 8-bit activations and
batch norm.

A quantizer is a frozen dataclass with `integers(weights)`: integer-valued floats of the weights'
shape, -128..127, no gradient. If a layer has at most four values with a zero among them it also has
`quantize(weights)` -> (index, codebook), and its networks can be exported.
"""

from dataclasses import dataclass

from train.binary import Binary
from train.clipq import Setting
from train.fixed_point import FixedPoint
from train.kmeans import KMeans
from train.ternary import Ternary


@dataclass(frozen=True)
class Method:
    """bound: shadow weights are clamped to so many standard deviations after each step; None: they
    are not."""

    quantizer: object
    about: str
    bound: float | None = None

    @property
    def exportable(self) -> bool:
        """Whether its networks fit the network file: four values, one of them zero."""
        return hasattr(self.quantizer, "quantize")


METHODS = {
    "clipq": Method(
        Setting(clip=0.5), "CLIP-Q as we train it: P = 50 %, weights within two sigma", bound=2.0
    ),
    "clipq-p20": Method(
        Setting(clip=0.2), "CLIP-Q with the published P = 20 % of either sign, no bound"
    ),
    "kmeans": Method(KMeans(), "k-means codebook with one entry at zero"),
    **{
        f"fixed{b}": Method(FixedPoint(b), f"{b}-bit fixed point, a power-of-two step per layer")
        for b in (8, 7, 6, 5, 4)
    },
    "ternary": Method(Ternary(), "ternary (TWN)"),
    "binary": Method(Binary(), "binary (BWN of XNOR-Net)"),
}
