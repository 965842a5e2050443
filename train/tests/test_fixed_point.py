"""Plain fixed-point weights against hand-computed cases."""

import pytest
import torch

from train.fixed_point import FixedPoint


@pytest.mark.parametrize("bits, position, codes", [(4, 2, [4, -2, 1, 0]), (8, 6, [64, -32, 19, 6])])
def test_codes_and_binary_point(bits, position, codes):
    """4 bits: quarters err by 0.0125, eighths by 0.01875, because 1.0 saturates at 7/8."""
    weights = torch.tensor([1.0, -0.5, 0.3, 0.1])
    assert FixedPoint(bits).fraction_bits(weights) == position
    assert FixedPoint(bits).integers(weights).tolist() == codes


def test_halves_go_away_from_zero_and_the_negative_side_has_one_code_more():
    assert FixedPoint(4).integers(torch.tensor([2.5, -2.5, 7.0])).tolist() == [3, -3, 7]
    assert FixedPoint(4).codes(torch.tensor([9.0, -9.0]), 0).tolist() == [7, -8]


def test_an_outlier_is_clipped_where_that_errs_less():
    """100 weights of 0.2 and one of 1.0 in codes -2..1: quarters err by 0.8125, halves by 4.25,
    eighths by 1.33."""
    weights = torch.tensor([0.2] * 100 + [1.0])
    assert FixedPoint(2).fraction_bits(weights) == 2
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
    step = 2.0 ** -quantizer.fraction_bits(weights)
    inside = (weights / step < 2 ** (bits - 1) - 1) & (weights / step > -(2 ** (bits - 1)))
    assert ((codes * step - weights)[inside].abs() <= step / 2 + 1e-7).all()


def test_zero_weights_and_bad_widths():
    assert FixedPoint(4).integers(torch.zeros(3)).tolist() == [0, 0, 0]
    for bits in (1, 9):
        with pytest.raises(ValueError, match=f"{bits} bits"):
            FixedPoint(bits)
