"""The codebook between fixed boundaries against hand-computed cases."""

import pytest
import torch

from train.quantize.codebooks import Segments, root_mean_square

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


def test_affine_codebook_is_a_sum():
    """Segments {-4}, {-1, -2}, {3, 2} about the zeros: means -4, -1.5, 2.5 with 1, 2 and 2 weights.
    Least squares of a, b and a + b: 3a + 2b = -7, 2a + 4b = 2, so a = -4, b = 2.5."""
    index, codebook = Segments((-1.5, -0.4, 0.5), 2, affine=True).quantize(WEIGHTS)
    assert index.tolist() == [[2, 1, 0, 3], [2, 0, 0, 3]]
    assert codebook.tolist() == [0, -127, 79, -48]


@pytest.mark.parametrize("zero, edges", [(1, (-0.35, 0.5, 1.3)), (2, (-1.3, -0.35, 0.5))])
def test_affine_codebook_has_the_least_error_of_all_sums(zero, edges):
    weights = torch.randn(3000, generator=torch.Generator().manual_seed(5)).double()
    segments = Segments(edges, zero, affine=True)
    index, codebook = segments.quantize(weights)
    assert codebook[3] == codebook[1] + codebook[2] and codebook.abs().max() == 127

    def error(a, b):
        values = torch.tensor([0, a, b, a + b]).double()[index]
        return (weights - values * (weights @ values) / (values @ values)).square().sum()

    a, b = codebook[1].item(), codebook[2].item()
    best = error(a, b)
    assert all(error(a + i, b + j) > 0.9999 * best for i in (-2, 0, 2) for j in (-2, 0, 2))
    assert error(0.8 * a, b) > 1.001 * best and error(a, 0.8 * b) > 1.001 * best


@pytest.mark.parametrize("weights", [torch.zeros(6), torch.ones(6), -torch.ones(6)])
def test_affine_codebook_of_one_value(weights):
    segments = Segments((-0.9, -0.5, 0.5), 2, affine=True)
    assert torch.equal(segments.integers(weights), 127 * weights)
