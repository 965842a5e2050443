"""Tiled convolutions against PyTorch's in double precision, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from train import winograd


@pytest.mark.parametrize("taps", [3, 5])
@pytest.mark.parametrize("height, width", [(8, 8), (12, 16), (5, 7), (1, 2)])
def test_equals_direct_convolution(taps, height, width):
    torch.manual_seed(taps * height + width)
    x = torch.randn(3, 6, height, width).to(memory_format=torch.channels_last)
    weight = torch.randn(5, 6, taps, taps)
    grad = torch.randn(3, 5, height, width)
    wide = [t.double().requires_grad_() for t in (x, weight)]
    narrow = [t.clone().requires_grad_() for t in (x, weight)]
    expected = F.conv2d(*wide, padding=taps // 2)
    got = winograd.conv2d(*narrow)
    assert got.is_contiguous(memory_format=torch.channels_last)
    pairs = [
        (expected, got),
        *zip(
            torch.autograd.grad(expected, wide, grad.double()),
            torch.autograd.grad(got, narrow, grad),
        ),
    ]
    for exact, ours in pairs:
        assert ours.dtype == torch.float32 and ours.shape == exact.shape
        assert (ours - exact).abs().max() < 2e-4 * exact.abs().max()


def test_first_layer_needs_no_input_gradient():
    weight = torch.randn(4, 3, 5, 5, requires_grad=True)
    winograd.conv2d(torch.randn(2, 3, 8, 8), weight).sum().backward()
    assert weight.grad.shape == weight.shape


def test_integers_survive_up_to_rounding():
    """Sums of integers of the size that the quantized layers have: within 1e-4 of the largest."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (2, 96, 16, 16), generator=generator).float()
    weight = torch.randint(-127, 128, (8, 96, 5, 5), generator=generator).float()
    exact = F.conv2d(x.double(), weight.double(), padding=2)
    assert (winograd.conv2d(x, weight) - exact).abs().max() < 1e-4 * exact.abs().max()
