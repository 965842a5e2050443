"""Fixtures that several tests share."""

import pytest
import torch

from train import nin


@pytest.fixture
def small(monkeypatch):
    """NINs have few channels, and one thread computes them: small operations wait for others."""
    few = [
        (name, min(inputs, 8), outputs and min(outputs, 8), kernel)
        for name, inputs, outputs, kernel in nin.LAYERS
    ]
    monkeypatch.setattr(nin, "LAYERS", tuple(few))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
