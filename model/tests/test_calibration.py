"""The quantizer: exact levels, the best codebook, scales, sums that no processor changes."""

import itertools

import numpy as np
import pytest

from model.interchange import exact
from model.interchange.codebook import best_codebook, find_levels
from model.interchange.quantize import _scale
from model.interchange.scales import ScaleError, multiplier, multipliers


@pytest.mark.parametrize(
    "levels, integers",
    [
        ([-1, 0, 1], {-1, 1}),
        ([-0.7, 0.35, 0], {-2, 1}),
        ([-3, 0, 4, 7], {-3, 4, 7}),
        ([0.25], {1}),
        ([-0.5, 0.5], {-1, 1}),
    ],
)
def test_few_levels_are_taken_exactly(levels, integers):
    rng = np.random.default_rng(0)
    gains = rng.uniform(0.01, 9, (6, 1))
    weights = (rng.choice(levels, (6, 50)) * gains).astype(np.float32).astype(np.float64)
    fit = find_levels(weights)
    assert fit.exact and set(fit.codebook.tolist()) - {0} == integers and fit.codebook[0] == 0
    assert np.allclose(fit.weights, weights, rtol=1e-5, atol=0)


def test_rows_of_opposite_sign_need_a_codebook_with_both():
    rows = np.array([[1.0, 2.0, 0.0], [-1.0, -2.0, 0.0]])
    assert find_levels(rows) is None
    rows = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 1.0]])
    assert find_levels(rows).exact


@pytest.mark.parametrize(
    "rows",
    [
        [[-2, 1], [-2, -1]],
        [[1, 2], [1, -3]],
        [[-0.3, 0], [0, 0.8]],
        [[-128, 127], [127, 0]],
        [[-2, -1, 1, 0], [-1, 0, 0, -1], [1, -2, 0, 0]],
        [[-3, 1, 2], [0, 0, 0]],
    ],
)
def test_values_that_no_row_shows_in_full_have_one_scale(rows):
    weights = np.array(rows) * np.float32(0.3)
    fit = find_levels(weights)
    assert fit.exact and np.ptp(fit.scale) == 0
    assert np.allclose(fit.weights, weights, rtol=1e-5, atol=0)


def test_rows_of_other_scales_keep_theirs():
    for rows in ([[-2, 1], [-0.21, -0.105]], [[1, -1], [1.0005, 0]], [[-1, 0], [0.0003, 0.0001]]):
        fit = find_levels(np.array(rows, float))
        assert np.allclose(fit.weights, rows, rtol=1e-5, atol=0), rows


def test_more_or_irrational_levels_are_not():
    rng = np.random.default_rng(0)
    assert find_levels(rng.normal(size=(3, 9))) is None
    assert find_levels(rng.choice([1, 2, 3, 4], (3, 40)).astype(float)) is None
    assert find_levels(rng.choice([1, np.sqrt(2), -np.pi], (3, 40))) is None


def test_best_codebook_beats_every_rounding_of_a_small_layer():
    """Against all assignments of four weights to the fitted values: none is better by more than
    the ridge."""
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(4, 4))
    covariance = mixing @ mixing.T + 0.1 * np.eye(4)
    weights = rng.normal(size=(1, 4))
    fit = best_codebook(weights, covariance, weights @ covariance, np.ones((1, 4), bool), False)

    def error(candidate):
        off = weights[0] - candidate
        return off @ covariance @ off

    values = fit.scale[0] * fit.codebook
    best = min(error(np.array(choice)) for choice in itertools.product(values, repeat=4))
    assert error(fit.weights[0]) <= best * 1.5 + 1e-9
    nearest = values[np.abs(weights[0][:, None] - values).argmin(axis=1)]
    assert error(fit.weights[0]) <= error(nearest) + 1e-9


def test_correlated_inputs_are_used():
    """Descent on the second moments loses less than rounding to the nearest value."""
    rng = np.random.default_rng(4)
    inputs = rng.normal(size=(2000, 60)) @ rng.normal(size=(60, 60)) * 0.3
    inputs += rng.normal(size=(2000, 1))
    covariance = np.cov(inputs.T, bias=True)
    weights = rng.normal(size=(8, 60))
    mask = np.ones((8, 60), bool)
    fit = best_codebook(weights, covariance, weights @ covariance, mask, False)
    levels = fit.scale[:, None, None] * fit.codebook
    nearest = np.take_along_axis(
        np.broadcast_to(levels, (8, 60, 4)),
        np.abs(weights[:, :, None] - levels).argmin(axis=2)[:, :, None],
        2,
    )[:, :, 0]

    def error(candidate):
        off = weights - candidate
        return np.einsum("ok,kl,ol->", off, covariance, off)

    assert error(fit.weights) < 0.5 * error(nearest)
    assert np.abs(fit.codebook).max() == 127 and fit.codebook[0] == 0


def test_shared_scale_and_masked_weights():
    rng = np.random.default_rng(5)
    mask = rng.random((6, 30)) < 0.5
    weights = rng.normal(size=(6, 30)) * mask
    wanted = weights + 3.0 * ~mask  # the sums would be nearer with the masked weights
    fit = best_codebook(weights, np.eye(30), wanted, mask, True)
    assert (fit.scale == fit.scale[0]).all()
    assert (fit.index[~mask] == 0).all() and fit.index[mask].any()


def test_sums_do_not_depend_on_their_order():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(20, 3000)), exact.operand(rng.normal(size=(3000, 10)), 3000)
    order = rng.permutation(3000)
    assert np.array_equal(exact.matmul(a, b), exact.matmul(a[:, order], b[order]))
    assert not np.array_equal(a @ b, a[:, order] @ b[order]), "the test must be able to fail"
    assert np.abs(exact.matmul(a, b) - a @ b).max() < 1e-3
    assert exact.total(a) == exact.total(a[:, order])
    integers = rng.integers(0, 256, (5000, 7))
    mean, covariance = exact.moments(integers)
    assert np.allclose(covariance, np.cov(integers.T, bias=True))
    assert np.array_equal(covariance, exact.moments(integers[::-1])[1])


def test_joint_moments_are_those_of_any_part(monkeypatch):
    rng = np.random.default_rng(7)
    x = rng.integers(0, 256, (5000, 7))
    y = x @ rng.normal(size=(7, 3)) + rng.normal(size=(5000, 3))
    for step in (700, 1 << 14):
        monkeypatch.setattr(exact, "STEP", step)
        mean, middle, covariance, crossed = exact.joint_moments(x, y)
        both = np.cov(x.T, y.T, bias=True)
        assert np.allclose(mean, x.mean(0)) and np.allclose(middle, y.mean(0))
        assert np.allclose(covariance, both[:7, :7]) and np.allclose(crossed, both[7:, :7])


def test_multipliers():
    factors = np.array([1.0, 0.999999, 2.0**-40, 3e4, 1 / 3, 1 - 2**-20])
    mult, shift = multiplier(factors)
    assert (mult >= 1).all() and (mult <= 32767).all() and (shift <= 31).all()
    off = np.abs(mult / 2.0**shift - factors) / factors
    assert off[[0, 1, 3, 4, 5]].max() < 1 / 16384
    assert (mult[5], shift[5]) == (16384, 14)  # rounded up to a power of two
    many = np.exp(np.random.default_rng(0).uniform(np.log(1e-5), np.log(2e4), 1000))
    mult, shift = multiplier(many)
    assert np.abs(mult / 2.0**shift / many - 1).max() < 2**-14


@pytest.mark.parametrize("bad", [0.0, -1.0, 1e6, np.nan])
def test_a_factor_that_cannot_be_expressed_names_its_channel(bad):
    with pytest.raises(ScaleError, match="channel 1: .* must be positive and at most 32767"):
        multiplier(np.array([1.0, bad, 2.0]))


@pytest.mark.parametrize("ratio", [(0.7, 0.02), (1.0, 1.0), (3.1, 1e-3), (1e-4, 2e-4), (1, 1e-9)])
def test_multipliers_of_an_addition(ratio):
    mult, shift = multipliers(ratio)
    assert all(1 <= m <= 32767 for m in mult) and 0 <= shift <= 31
    assert np.abs(np.array(mult) / 2.0**shift - ratio).max() < 2**-14 * max(ratio)


def test_scale_clips_rare_peaks_only():
    rng = np.random.default_rng(7)
    even = rng.uniform(0, 1, 20000)
    assert _scale(even, False) == pytest.approx(1 / 255, rel=0.01)
    peaked = np.append(rng.normal(0, 1, 200_000), 20.0)
    assert _scale(peaked, True) < 0.6 * 20 / 127
    assert _scale(np.zeros(5), True) == 1


def test_the_last_entry_of_an_affine_codebook_is_the_sum_of_the_others():
    rng = np.random.default_rng(8)
    weights, mixing = rng.normal(size=(6, 20)), rng.normal(size=(20, 20))
    covariance, mask = mixing @ mixing.T, np.ones((6, 20), bool)
    crossed = weights @ covariance
    free, affine = (
        best_codebook(weights, covariance, crossed, mask, False, how) for how in (False, True)
    )
    error = lambda fit: np.einsum(
        "ok,kl,ol->", *(weights - fit.weights, covariance, weights - fit.weights)
    )
    assert affine.codebook[3] == affine.codebook[1] + affine.codebook[2]
    assert np.abs(affine.codebook).max() == 127 and len(set(affine.codebook.tolist())) == 4
    assert error(affine) < 1.3 * error(free) and error(affine) < 0.2 * (crossed * weights).sum()
