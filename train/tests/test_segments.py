"""The codebook between fixed boundaries against hand-computed cases."""

import pytest
import torch

from train import clipq
from train.segments import Segments, root_mean_square

WEIGHTS = torch.tensor([[3.0, -4.0, 0.0, -1.0], [2.0, 0.5, -0.5, -2.0]])  # squares sum to 34.5: root mean square 2.0767


def test_hand_made_case():
    """Boundaries -3.115, -0.831 and 1.038: segments {-4}, {-1, -2}, the zeros, {3, 2}."""
    index, codebook = Segments((-1.5, -0.4, 0.5), 2).quantize(WEIGHTS)
    assert root_mean_square(WEIGHTS) == pytest.approx((34.5 / 8) ** 0.5)
    assert index.tolist() == [[3, 1, 0, 2], [3, 0, 0, 2]]
    assert codebook.tolist() == [0, -127, -48, 79]  # -1.5 and 2.5 times 127 / 4, rounded


def test_scale_of_the_weights_does_not_matter():
    segments, weights = Segments((-1.2, -0.3, 0.5), 2), torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    for scale in (2.0**-9, 1.0, 2.0**5):
        assert torch.equal(segments.integers(weights * scale), segments.integers(weights))


@pytest.mark.parametrize("zero", range(4))
def test_zero_segment(zero):
    index, codebook = Segments((-1.0, 0.0, 1.0), zero).quantize(torch.linspace(-3, 3, 100))
    assert codebook[0] == 0 and (codebook[1:].diff() > 0).all()
    assert int((index == 0).sum()) == (21, 29, 29, 21)[zero]  # even weights, boundaries at their root mean square of 3 / sqrt(3)


def test_a_settled_layer_keeps_its_quantized_values():
    weights = torch.randn(64, 25, generator=torch.Generator().manual_seed(1))
    segments = Segments((-1.0, -0.3, 0.6), 2)
    before = segments.integers(weights)
    clipq.settle(weights, segments, 1.0)
    assert torch.equal(segments.integers(weights), before)


@pytest.mark.parametrize("edges, zero", [((0.0, 1.0), 0), ((0.0, 0.0, 1.0), 0), ((1.0, 0.0, 2.0), 0), ((0.0, 1.0, 2.0), 4)])
def test_bad_settings(edges, zero):
    with pytest.raises(ValueError, match="segments"):
        Segments(edges, zero)
