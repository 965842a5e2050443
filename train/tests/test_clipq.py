"""CLIP-Q against the worked example of the paper, hand-made partitions and the straight-through
gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from train.quantize import clipq
from train.quantize.clipq import Setting

# The 5x5 kernel of Cheng, Lin and Shih, IEEE TCAS-I 69(10), 2022.
KERNEL = torch.tensor(
    [
        [0.1, 0.2, -0.9, 1.5, -0.3],
        [1.4, -0.8, -0.7, -1.1, -0.2],
        [-1.3, 0.5, -0.1, -0.5, -1.4],
        [0.7, -0.3, -0.8, 0.6, -0.1],
        [0.1, -0.4, -0.9, 0.1, 1.5],
    ]
)
PAPER = Setting(clip=0.2, bits=2, by_sign=False)


def test_worked_example_means():
    index = clipq.partition(KERNEL, PAPER)
    means = clipq.segment_means(KERNEL, index, 4)
    assert np.allclose(means, [0, -7.2 / 7, -2.4 / 6, 6.4 / 7], atol=1e-7)
    assert torch.equal(index == 0, KERNEL.abs() < 0.15)
    assert torch.bincount(index.flatten()).tolist() == [5, 7, 6, 7]


def test_worked_example_in_q35():
    index, codebook = replace(PAPER, fraction_bits=5).quantize(KERNEL)
    assert codebook.tolist() == [0, -33, -13, 29]  # -1.03125, -0.40625, 0.90625


def test_paper_mode_is_mult_1_shift_5():
    """Q3.5 weights times Q3.5 activations shifted right by 5 is Q3.5 again."""
    from model.reference.requantize import requantize

    weight, activation = clipq.fixed_point(torch.tensor([1.5])), np.array([64])  # 1.5 and 2.0
    assert requantize(activation.astype(np.int64) * weight.numpy(), 0, 1, 5, 0, 255).tolist() == [
        96
    ]  # 3.0


def test_fixed_point_rounds_and_saturates():
    means = torch.tensor([0, 0.5 / 32, -0.5 / 32, 3.99, -4.5, 1.0])
    assert clipq.fixed_point(means).tolist() == [0, 1, -1, 127, -128, 32]


def test_each_sign_loses_its_share():
    weights = torch.cat([torch.arange(1.0, 101), -torch.arange(1.0, 51)])
    index = clipq.partition(weights, Setting(clip=0.3))
    assert torch.equal(
        index == 0, (weights.abs() <= 15) & (weights < 0) | (weights.abs() <= 30) & (weights > 0)
    )


def test_segments_have_equal_width():
    weights = -torch.cat([torch.linspace(1, 3, 201), torch.tensor([9.0])])
    index = clipq.partition(weights, Setting(clip=0))
    assert torch.equal(index == 1, weights <= -5)
    assert torch.equal(index == 2, weights > -5)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_three_bits_and_more(bits):
    weights = torch.randn(5000, generator=torch.Generator().manual_seed(bits))
    index, codebook = Setting(clip=0.1, bits=bits).quantize(weights)
    assert index.min() == 0 and index.max() == 2**bits - 1 and codebook[0] == 0
    used = codebook[1:][torch.bincount(index, minlength=2**bits)[1:] > 0]
    assert torch.equal(
        used, used.sort().values
    )  # segments run from the most negative to the most positive


@pytest.mark.parametrize(
    "weights", [torch.zeros(4), torch.ones(4), -torch.ones(4), torch.tensor([1.0, -1.0, 0.0])]
)
def test_degenerate_weights(weights):
    index, codebook = Setting(clip=0).quantize(weights)
    assert torch.equal(codebook[index], (127 * weights).long())


def test_gradient_reaches_clipped_weights():
    weights = torch.randn(64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.arange(64.0)
    quantized = clipq.fake_quantize(weights, Setting())
    assert (quantized == 0).sum() >= 10
    (quantized * target).sum().backward()
    assert torch.equal(weights.grad, target)


def test_clipped_weight_comes_back():
    weights = torch.tensor(
        [0.01, -0.01, 1.0, -1.0, 0.9, -0.9, 0.8, -0.8, 0.7, -0.7], requires_grad=True
    )
    assert clipq.fake_quantize(weights, Setting())[0] == 0
    optimizer = torch.optim.SGD([weights], lr=1.0)
    clipq.fake_quantize(weights, Setting())[0].mul(
        -0.95
    ).backward()  # ask for a larger first weight
    optimizer.step()
    assert clipq.fake_quantize(weights, Setting())[0] > 0


def test_bound():
    weights = torch.cat([torch.full((99,), 1.0), torch.tensor([-100.0])])
    sigma = weights.square().mean().sqrt()
    clipq.bound(weights, 2.0)
    assert weights.min() == -2 * sigma and (weights[:99] == 1).all()


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="clip 1.0"):
        Setting(clip=1.0)
    with pytest.raises(ValueError, match="1 bits"):
        Setting(bits=1)
