"""Hand-computed values of the output stage, on NumPy arrays and on torch tensors."""

import numpy as np
import pytest
import torch

from model.reference.requantize import requantize, shift_round

KINDS = {
    "numpy": lambda values: np.array(values, np.int64),
    "torch": lambda values: torch.tensor(values, dtype=torch.int64),
}


@pytest.fixture(params=list(KINDS))
def array(request):
    return KINDS[request.param]


@pytest.mark.parametrize(
    "x, shift, expected",
    [
        ([5, -5, 0], 0, [5, -5, 0]),  # no rounding constant at shift 0
        (
            [1, -1, 3, -3, 5, -5],
            1,
            [1, 0, 2, -1, 3, -2],
        ),  # halves go up: -0.5 -> 0, -1.5 -> -1, -2.5 -> -2
        ([2, -2, 6, -6], 2, [1, 0, 2, -1]),
        ([15, 16, 17, -15, -16, -17, -48], 5, [0, 1, 1, 0, 0, -1, -1]),
        ([2**30 - 1, 2**30, -(2**30), -(2**30) - 1], 31, [0, 1, 0, -1]),
        ([(2**31 - 1) * 32767, -(2**31 - 1) * 32767], 31, [32767, -32767]),
    ],
)
def test_shift_round(array, x, shift, expected):
    assert shift_round(array(x), shift).tolist() == expected
    assert shift_round(array(x), array([shift] * len(x))).tolist() == expected


def test_requantize_per_channel(array):
    acc = array([[[10, -10]], [[100, -100]], [[7, -7]]])
    column = lambda values: array(values).reshape(3, 1, 1)
    y = requantize(acc, column([2, -4, 0]), column([1, 3, 32767]), column([2, 5, 16]), -128, 127)
    # channel 0: 12/4, -8/4; channel 1: 96*3/32 = 9, -104*3/32 = -9.75; channel 2: 7*32767/65536 =
    # 3.4999
    assert y.tolist() == [[[3, -2]], [[9, -10]], [[3, -3]]]


def test_requantize_clamps(array):
    acc = array([-(2**31) + 1, -1000, -1, 0, 254, 255, 256, 2**31 - 1])
    assert requantize(acc, 0, 1, 0, 0, 255).tolist() == [0, 0, 0, 0, 254, 255, 255, 255]
    assert requantize(acc, 0, 1, 0, -128, 127).tolist() == [-128, -128, -1, 0, 127, 127, 127, 127]
    assert requantize(acc, 0, 32767, 0, 5, 5).tolist() == [5] * 8


def test_bias_needs_the_33rd_bit(array):
    assert requantize(array([2**31 - 1]), 2**31 - 1, 1, 31, -128, 127).tolist() == [2]


def test_narrow_types_are_refused():
    with pytest.raises(TypeError, match="acc must be int64, not int32"):
        requantize(np.zeros(1, np.int32), 0, 1, 0, 0, 255)
    with pytest.raises(TypeError, match="shift must be int64, not uint8"):
        requantize(np.zeros(1, np.int64), 0, 1, np.zeros(1, np.uint8), 0, 255)
    with pytest.raises(TypeError, match="acc must be int64, not torch.int32"):
        requantize(torch.zeros(1, dtype=torch.int32), 0, 1, 0, 0, 255)
