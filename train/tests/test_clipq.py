"""CLIP-Q against the worked example of the paper, hand-made partitions and the straight-through
gradient."""

import numpy as np
import pytest
import torch

from train.net import replaced
from train.quantize import codebooks as clipq
from train.quantize.codebooks import ClipQ, root_mean_square

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


def test_worked_example():
    """Of 15 negative weights three are clipped, up to -0.2; of 10 positive ones two, up to 0.1 (and
    with them the third 0.1). The negative segments meet at -0.85."""
    index, codebook = ClipQ(0.2, 5, root_mean_square(KERNEL)).quantize(KERNEL)
    expected = torch.where(KERNEL > 0.1, 3, 0)
    expected = torch.where(KERNEL < -0.2, 2, expected)
    assert torch.equal(index, torch.where(KERNEL <= -0.85, 1, expected))
    means = clipq.segment_means(KERNEL, index)
    assert np.allclose(means, [0, -5.6 / 5, -3.8 / 7, 6.4 / 7], atol=1e-6)
    assert codebook.tolist() == [0, -36, -17, 29]  # of -35.84, -17.37, 29.26


def test_paper_mode_is_mult_1_shift_5():
    """Q3.5 weights times Q3.5 activations shifted right by 5 is Q3.5 again."""
    from model.reference.requantize import requantize

    weight, activation = clipq.fixed_point(torch.tensor([1.5]), 5), np.array([64])  # 1.5 and 2.0
    assert requantize(activation.astype(np.int64) * weight.numpy(), 0, 1, 5, 0, 255).tolist() == [
        96
    ]  # 3.0


def test_fixed_point_rounds_and_saturates():
    means = torch.tensor([0, 0.5 / 32, -0.5 / 32, 3.99, -4.5, 1.0])
    assert clipq.fixed_point(means, 5).tolist() == [0, 1, -1, 127, -128, 32]


def test_each_sign_loses_its_share():
    weights = torch.cat([torch.arange(1.0, 101), -torch.arange(1.0, 51)])
    index = clipq.partition(weights, 0.3)
    assert torch.equal(
        index == 0, (weights.abs() <= 15) & (weights < 0) | (weights.abs() <= 30) & (weights > 0)
    )


def test_segments_have_equal_width():
    weights = -torch.cat([torch.linspace(1, 3, 201), torch.tensor([9.0])])
    index = clipq.partition(weights, 0)
    assert torch.equal(index == 1, weights <= -5)
    assert torch.equal(index == 2, weights > -5)


@pytest.mark.parametrize(
    "weights", [torch.zeros(4), torch.ones(4), -torch.ones(4), torch.tensor([1.0, -1.0, 0.0])]
)
def test_degenerate_weights(weights):
    index, codebook = ClipQ(0.0).quantize(weights)
    assert torch.equal(codebook[index], (127 * weights).long())


def test_gradient_stops_at_the_clamp():
    soft = torch.tensor([-3.0, 5.2, 300.0], requires_grad=True)
    out = replaced(soft, torch.tensor([0, 5, 255]), 0, 255)
    assert out.tolist() == [0, 5, 255]
    out.sum().backward()
    assert soft.grad.tolist() == [0, 1, 0]


def test_gradient_reaches_clipped_weights_which_come_back():
    weights = torch.tensor([0.01, -0.01, 1, -1, 0.9, -0.9, 0.8, -0.8], requires_grad=True)
    target = torch.arange(8.0) - 50
    quantized = replaced(weights, ClipQ(0.2).integers(weights))
    assert quantized[0] == 0
    (quantized * target).sum().backward()
    assert torch.equal(weights.grad, target)
    torch.optim.SGD([weights], lr=0.02).step()
    assert ClipQ(0.2).integers(weights)[0] > 0
