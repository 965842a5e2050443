"""Ternary weights against a hand-computed case."""

import pytest
import torch

from train.ternary import Ternary

WEIGHTS = torch.tensor(
    [[1.0, -1.0, 0.5], [-0.2, 0.1, 0.0]]
)  # mean magnitude 2.8 / 6, threshold 0.3267


def test_threshold_is_seven_tenths_of_the_mean_magnitude():
    assert Ternary().integers(WEIGHTS).tolist() == [[1, -1, 1], [0, 0, 0]]
    assert Ternary(1.1).integers(WEIGHTS).tolist() == [[1, -1, 0], [0, 0, 0]]  # threshold 0.5133


def test_index_and_codebook_fit_the_file():
    index, codebook = Ternary().quantize(WEIGHTS)
    assert index.tolist() == [[2, 1, 2], [0, 0, 0]] and codebook.tolist() == [0, -1, 1, 0]


def test_a_weight_on_the_threshold_is_zero():
    assert Ternary(1.0).integers(torch.tensor([0.5, -0.5, 0.5])).tolist() == [0, 0, 0]


def test_negative_factor():
    with pytest.raises(ValueError, match="factor -1"):
        Ternary(-1)
