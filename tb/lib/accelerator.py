"""What the benches of the whole accelerator share: its parameters, the tensors that both reference
models expect, a limit of cycles."""

from __future__ import annotations

import cocotb
import numpy as np
import torch

from host.rtl_backend import first_mismatch
from model.compiler import Compiled
from model.compiler.hardware import Hardware
from model.reference.integer import run_integer
from model.reference.torch_net import TorchNet

torch.set_num_threads(1)  # the regression runs one simulation per core


def random_generator() -> np.random.Generator:
    """The test's numpy generator, seeded by cocotb."""
    return np.random.default_rng(cocotb.RANDOM_SEED)


def on_icarus() -> bool:
    """Whether the simulator is Icarus, which does about 150 cycles a second on the whole
    accelerator."""
    return "icarus" in cocotb.SIM_NAME.lower()


def hardware_of(dut) -> Hardware:
    """The parameters that the harness was built with."""
    names = ("NUM_MODULES", "BANK_WORDS", "WEIGHT_WORDS", "PLANES")
    return Hardware(*(int(getattr(dut, name).value) for name in names))


def expected_tensors(net, images: np.ndarray) -> dict:
    """{layer: int32 [N, C, H, W]} of PyTorch; NumPy must agree with it."""
    tensors = {
        name: tensor.numpy()
        for name, tensor in TorchNet(net)(torch.from_numpy(images), keep=True).items()
    }
    for name, tensor in run_integer(net, images, keep=True).items():
        if problem := first_mismatch(name, tensors[name], tensor):
            raise AssertionError(f"NumPy (got) and PyTorch (expected) disagree: {problem}")
    return tensors


def cycle_limit(compiled: Compiled, slowdown: int = 64) -> int:
    """Cycles after which a run counts as hanging: every beat `slowdown` cycles late and a tenth of
    the PEs busy."""
    image_quads = (
        int(np.prod(compiled.tensors["input"].shape[1:])) * compiled.tensors["input"].quads
    )
    beats = len(compiled.weights) + image_quads + compiled.total_result_beats
    work = sum(layer.macs for layer in compiled.net.layers) // (10 * compiled.hardware.num_modules)
    pixels = sum(
        int(np.prod(layer.in_shape) * np.prod(layer.kernel or (2,)))  # a sum reads two tensors
        for layer in compiled.net.layers
        if layer.op != "conv"
    )
    return 50_000 + slowdown * beats + work + pixels
