"""The k-means codebook against hand-computed cases."""

import numpy as np
import pytest
import torch

from train.quantize.kmeans import KMeans

WEIGHTS = torch.tensor([2.0, -4.0, 0.1, -1.0, 2.0, -0.1, -4.0, -1.0])


def test_clusters_of_a_hand_made_case():
    index, codebook = KMeans().quantize(WEIGHTS)
    assert np.allclose(KMeans().centres(WEIGHTS), [-4, -1, 0, 2])
    assert codebook.tolist() == [0, -127, -32, 64]  # -4, -1 and 2 times 127 / 4
    assert index.tolist() == [3, 1, 0, 2, 3, 0, 1, 2]


def test_first_iterations():
    """Start at the quantiles -4, -1, 0.1; then the positive cluster is 0.1, 2, 2; then 2, 2."""
    assert np.allclose(KMeans(0).centres(WEIGHTS), [-4, -1, 0, 0.1])
    assert np.allclose(KMeans(1).centres(WEIGHTS), [-4, -1, 0, 4.1 / 3])
    assert np.allclose(KMeans(2).centres(WEIGHTS), [-4, -1, 0, 2])


def test_start_decides_which_side_of_zero_has_two_centres():
    """Places 1, 4 and 6 of -2, -2, -0.1, 0.1, 1, 1, 4, 4."""
    assert np.allclose(KMeans(0, (0.2, 0.6, 0.9)).centres(-WEIGHTS), [-2, 0, 1, 4])
    assert np.allclose(KMeans(20, (0.2, 0.6, 0.9)).centres(-WEIGHTS), [-2, 0, 1, 4])


def error(weights, iterations):
    centres = torch.from_numpy(KMeans(iterations).centres(weights))
    return (weights.double().view(-1, 1) - centres).square().min(1).values.sum().item()


@pytest.mark.parametrize("seed", range(3))
def test_no_iteration_adds_to_the_error(seed):
    weights = torch.randn(3000, generator=torch.Generator().manual_seed(seed))
    errors = [error(weights, n) for n in range(25)]
    assert all(b <= a + 1e-9 for a, b in zip(errors, errors[1:]))
    assert errors[20] - errors[24] < 1e-3 * errors[20]


def test_each_weight_gets_its_nearest_centre():
    weights = torch.randn(500, generator=torch.Generator().manual_seed(9))
    centres = torch.from_numpy(KMeans().centres(weights))
    index, codebook = KMeans().quantize(weights)
    nearest = centres[(weights.double().view(-1, 1) - centres).abs().argmin(1)]
    expected = (nearest * 127 / centres.abs().max()).round().long()
    assert torch.equal(codebook[index], expected)


@pytest.mark.parametrize(
    "weights", [torch.zeros(5), torch.ones(5), -torch.ones(5), torch.tensor([3.0])]
)
def test_degenerate_weights(weights):
    assert torch.equal(KMeans().integers(weights), 127 * weights.sign())


def test_negative_iterations():
    with pytest.raises(ValueError, match="-1 iterations"):
        KMeans(-1)
