"""Folding batch norm into bias, mult and shift."""

import numpy as np
import pytest
import torch

from model.reference.integer import run_integer
from train.net import Conv, Net
from train.quantize.fold import FoldError, add_scales, fold, mult_and_shift, to_network


def test_mult_and_shift_are_close_and_in_range():
    factor = np.exp(np.random.default_rng(0).uniform(np.log(1e-5), np.log(2e4), 1000))
    mult, shift = mult_and_shift(factor)
    assert mult.min() >= 1 and mult.max() <= 32767 and shift.min() >= 0 and shift.max() <= 31
    assert np.abs(mult / 2.0**shift / factor - 1).max() < 2**-14


def test_factor_that_rounds_up_to_a_power_of_two():
    mult, shift = mult_and_shift(np.array([1 - 2**-20]))
    assert (mult[0], shift[0]) == (16384, 14)


@pytest.mark.parametrize("bad", [0.0, -1.0, 1e6, 1e-12])
def test_inexpressible_factor_names_its_channel(bad):
    with pytest.raises(ValueError, match="channel 1"):
        mult_and_shift(np.array([1.0, bad, 2.0]))


def block_of(inputs, outputs, kernel, last: bool = False) -> Conv:
    """A convolution of its own."""
    window = {"kernel": [kernel] * 2, "stride": [1, 1], "pad": [kernel // 2] * 2}
    kind = {"norm": "batch", "relu": not last, "signed": last}
    return Conv({"channels": [inputs, outputs], **window, **kind})


def alone(block: Conv) -> Net:
    """A network of one convolution of 12x12 images."""
    layer = {"name": "conv", "op": "conv", "inputs": ["input"], **block.spec}
    unit = {"scale": [1.0] * 6, "offset": [0.0] * 6, "unit": 1.0}
    net = Net({"input": {"shape": [6, 12, 12], **unit}, "layers": [layer]})
    net.nodes["conv"], block.spec = block, layer
    return net


def random_block(seed: int, last: bool = False) -> Conv:
    torch.manual_seed(seed)
    block = block_of(6, 9, 3, last)
    with torch.no_grad():
        block.bn.running_mean.normal_(0, 2000)
        block.bn.running_var.uniform_(1e7, 1e8)
        block.bn.weight.uniform_(0.5, 1.5)
        block.bn.bias.normal_(0, 0.3)
    block.steps = torch.tensor(50.0)
    block.mode = "fake"
    return block.eval()


@pytest.mark.parametrize("last", [False, True])
def test_integers_follow_the_float_block(last):
    """The rounding of bias and mult moves an output by at most one step, and hardly ever."""
    block = random_block(3, last)
    rng = torch.Generator().manual_seed(4)
    x = torch.randint(-128, 128, (4, 6, 12, 12), generator=rng)
    network = to_network(alone(block))
    with torch.no_grad():
        difference = torch.from_numpy(run_integer(network, x.numpy())) - block(x.float()).long()
    assert difference.abs().max() <= 1
    assert (difference != 0).double().mean() < 0.01


def test_fold_is_repeatable():
    first, second = (fold(random_block(5)).values() for _ in range(2))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(first, second))


@pytest.mark.parametrize("ratio", [(0.7, 0.02), (1.0, 1.0), (3.1, 1e-3), (1e-4, 2e-4)])
def test_scales_of_an_addition(ratio):
    mult, shift = add_scales(np.array(ratio))
    assert all(1 <= m <= 32767 for m in mult) and 0 <= shift <= 31
    assert np.abs(np.array(mult) / 2.0**shift - ratio).max() < 2**-14 * max(ratio)


def test_inputs_of_an_addition_that_differ_too_much():
    with pytest.raises(FoldError, match="differ by 1000000 times"):
        add_scales(np.array([1.0, 1e-6]))
