"""The codebook between fixed boundaries against hand-computed cases."""

import pytest
import torch

from train import clipq
from train.segments import Segments, root_mean_square

WEIGHTS = torch.tensor(
    [[3.0, -4.0, 0.0, -1.0], [2.0, 0.5, -0.5, -2.0]]
)  # squares sum to 34.5: root mean square 2.0767


def test_hand_made_case():
    """Boundaries -3.115, -0.831 and 1.038: segments {-4}, {-1, -2}, the zeros, {3, 2}."""
    index, codebook = Segments((-1.5, -0.4, 0.5), 2).quantize(WEIGHTS)
    assert root_mean_square(WEIGHTS) == pytest.approx((34.5 / 8) ** 0.5)
    assert index.tolist() == [[3, 1, 0, 2], [3, 0, 0, 2]]
    assert codebook.tolist() == [0, -127, -48, 79]  # -1.5 and 2.5 times 127 / 4, rounded


def test_scale_of_the_weights_does_not_matter():
    segments, weights = (
        Segments((-1.2, -0.3, 0.5), 2),
        torch.randn(40, 9, generator=torch.Generator().manual_seed(0)),
    )
    for scale in (2.0**-9, 1.0, 2.0**5):
        assert torch.equal(segments.integers(weights * scale), segments.integers(weights))


@pytest.mark.parametrize("zero", range(4))
def test_zero_segment(zero):
    index, codebook = Segments((-1.0, 0.0, 1.0), zero).quantize(torch.linspace(-3, 3, 100))
    assert codebook[0] == 0 and (codebook[1:].diff() > 0).all()
    assert (
        int((index == 0).sum()) == (21, 29, 29, 21)[zero]
    )  # even weights, boundaries at their root mean square of 3 / sqrt(3)


def test_a_settled_layer_keeps_its_quantized_values():
    weights = torch.randn(64, 25, generator=torch.Generator().manual_seed(1))
    segments = Segments((-1.0, -0.3, 0.6), 2)
    before = segments.integers(weights)
    clipq.settle(weights, segments, 1.0)
    assert torch.equal(segments.integers(weights), before)


@pytest.mark.parametrize(
    "edges, zero",
    [((0.0, 1.0), 0), ((0.0, 0.0, 1.0), 0), ((1.0, 0.0, 2.0), 0), ((0.0, 1.0, 2.0), 4)],
)
def test_bad_settings(edges, zero):
    with pytest.raises(ValueError, match="segments"):
        Segments(edges, zero)


def test_more_zeros():
    """In shares of their boundary the weights nearest to 0 are 0, 0.5 at 0.48, -0.5 at 0.60, -1 at
    1.20, 2 at 1.93: the fourth and the fifth become zero where they are asked for."""
    segments = Segments((-1.5, -0.4, 0.5), 2)
    zeros = [
        int((segments.with_zeros(WEIGHTS, share).quantize(WEIGHTS)[0] == 0).sum())
        for share in (0.0, 0.375, 0.5, 0.625)
    ]
    assert zeros == [3, 3, 4, 5]
    assert segments.with_zeros(WEIGHTS, 0.375) == segments
    wider = segments.with_zeros(WEIGHTS, 0.5)
    factor = 1 / root_mean_square(WEIGHTS) / 0.4  # that of -1
    assert wider.edges == pytest.approx((-1.5, -0.4 * factor, 0.5 * factor)) and wider.zero == 2


@pytest.mark.parametrize("share", [0.45, 0.6, 0.7])
def test_asked_share_of_zeros(share):
    weights = torch.randn(20000, generator=torch.Generator().manual_seed(2))
    for segments in (Segments((-1.3, -0.35, 0.5), 2), Segments((-0.35, 0.5, 1.3), 1)):
        index, _ = segments.with_zeros(weights, share).quantize(weights)
        assert (index == 0).double().mean().item() == pytest.approx(share, abs=1e-3)


def test_zeros_that_cannot_be():
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(3))
    with pytest.raises(ValueError, match="not 3 ascending numbers"):
        Segments((-1.3, -0.4, 0.5), 2).with_zeros(weights, 0.95)
    with pytest.raises(ValueError, match="does not contain 0"):
        Segments((-1.0, 0.1, 1.0), 2).with_zeros(weights, 0.5)
    one_sided = Segments((0.4, 1.0, 1.5), 0).with_zeros(weights, 0.8)
    assert (one_sided.quantize(weights)[0] == 0).double().mean().item() == pytest.approx(
        0.8, abs=2e-3
    )
