"""The quantizers that CLIP-Q is compared with, against hand-computed cases."""

import pytest
import torch

from train.net import FoldError, to_network
from train.quantize.codebooks import ClipQ, FixedPoint, Segments, Signs
from train.quantize.start import quantize
from train.tests.helpers import START, inputs, nin


@pytest.mark.parametrize("bits, codes", [(4, [4, -2, 1, 0]), (8, [64, -32, 19, 6])])
def test_codes_of_the_best_binary_point(bits, codes):
    """4 bits: quarters err by 0.0125, eighths by 0.01875, because 1.0 saturates at 7/8."""
    weights = torch.tensor([1.0, -0.5, 0.3, 0.1])
    assert FixedPoint(bits).integers(weights).tolist() == codes


def test_halves_go_away_from_zero_and_the_negative_side_has_one_code_more():
    assert FixedPoint(4).integers(torch.tensor([2.5, -2.5, 7.0])).tolist() == [3, -3, 7]
    assert FixedPoint(4).integers(torch.tensor([8.0, -8.0, 1.0, -1.0])).tolist() == [7, -8, 1, -1]


def test_an_outlier_is_clipped_where_that_errs_less():
    """100 weights of 0.2 and one of 1.0 in codes -2..1: quarters err by 0.8125, halves by 4.25,
    eighths by 1.33."""
    weights = torch.tensor([0.2] * 100 + [1.0])
    assert FixedPoint(2).integers(weights).unique().tolist() == [1]


@pytest.mark.parametrize("bits", range(2, 9))
def test_range_and_error_of_normal_weights(bits):
    weights = 0.037 * torch.randn(4000, generator=torch.Generator().manual_seed(bits))
    quantizer = FixedPoint(bits)
    codes = quantizer.integers(weights)
    assert (
        torch.equal(codes, codes.round())
        and codes.min() >= -(2 ** (bits - 1))
        and codes.max() < 2 ** (bits - 1)
    )
    step = 2.0 ** torch.log2((codes * weights).sum() / codes.square().sum()).round()
    inside = (weights / step < 2 ** (bits - 1) - 1) & (weights / step > -(2 ** (bits - 1)))
    assert ((codes * step - weights)[inside].abs() <= step / 2 + 1e-7).all()


def test_zero_weights():
    assert FixedPoint(4).integers(torch.zeros(3)).tolist() == [0, 0, 0]


WEIGHTS = torch.tensor(
    [[1.0, -1.0, 0.5], [-0.2, 0.1, 0.0]]
)  # mean magnitude 2.8 / 6, threshold 0.3267


def test_threshold_is_seven_tenths_of_the_mean_magnitude():
    assert Signs(0.7).integers(WEIGHTS).tolist() == [[1, -1, 1], [0, 0, 0]]


def test_index_and_codebook_of_ternary_weights():
    index, codebook = Signs(0.7).quantize(WEIGHTS)
    assert index.tolist() == [[2, 1, 2], [0, 0, 0]] and codebook.tolist() == [0, -1, 1, 0]


def test_signs():
    weights = torch.tensor([[-0.1, 0.0], [3.0, -7.0]])
    assert Signs(0).integers(weights).tolist() == [[-1, 1], [1, -1]]
    index, codebook = Signs(0).quantize(weights)
    assert index.tolist() == [[1, 2], [2, 1]] and codebook.tolist() == [0, -1, 1, 0]


QUANTIZERS = [
    ClipQ(0.5),
    ClipQ(0.2),
    *map(FixedPoint, (8, 7, 6, 5, 4)),
    Signs(0.7),
    Signs(0),
    Segments((-1.2, -0.3, 0.5), 2, affine=True),
    ClipQ(0.2, 5, 1.5),
]


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_integers_approximate_the_weights(quantizer):
    weights = 0.05 * torch.randn(30, 20, 3, 3, generator=torch.Generator().manual_seed(1))
    integers = quantizer.integers(weights)
    assert integers.shape == weights.shape and integers.dtype == weights.dtype
    assert not integers.requires_grad and torch.equal(integers, integers.round())
    assert integers.min() >= -128 and integers.max() <= 127
    assert (integers * weights).sum() > 0.5 * integers.norm() * weights.norm()


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=repr)
def test_codebooks_can_be_exported(quantizer):
    net = nin(2)
    quantize(net, inputs(net), START)
    for _, block in net.blocks():
        block.quantizer = quantizer
    if isinstance(quantizer, FixedPoint):
        with pytest.raises(FoldError, match="layer conv1: .* no codebook of four values"):
            to_network(net)
        return
    network = to_network(net)
    for name, block in net.blocks():
        expected = quantizer.integers(block.weight).numpy()
        assert (network.layer(name).weights == expected).all()
