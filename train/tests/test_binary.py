"""Binary weights against a hand-made case."""

import torch

from train.binary import Binary


def test_signs():
    weights = torch.tensor([[-0.1, 0.0], [3.0, -7.0]])
    assert Binary().integers(weights).tolist() == [[-1, 1], [1, -1]]
    index, codebook = Binary().quantize(weights)
    assert index.tolist() == [[1, 2], [2, 1]] and codebook.tolist() == [0, -1, 1, 0]
