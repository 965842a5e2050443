"""Predictor: from the packets on the input streams to the tensors that must come back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pyuvm import uvm_analysis_port, uvm_subscriber

from host.register_map import Ctrl, Register
from model.compiler import Compiled
from tb.lib.accelerator import expected_tensors
from tb.uvm.axi_lite import RegisterItem
from tb.uvm.axi_stream import PacketItem


@dataclass(frozen=True)
class ExpectedImage:
    """What the accelerator has to send for one image: {layer: int32 [1, C, H, W]} in the order of
    the program."""

    number: int
    compiled: Compiled
    tensors: dict


@dataclass(frozen=True)
class Control:
    """CTRL was written: a run begins, or a soft reset ends what there was."""

    started: bool
    aborted: bool


def decode_image(compiled: Compiled, words: np.ndarray) -> np.ndarray:
    """The image that a packet of uint64 words carries: int32 [1, C, H, W]. Raises ValueError for a
    wrong length."""
    tensor = compiled.tensors["input"]
    channels, height, width = tensor.shape
    size = height * width * 4 * tensor.quads
    if len(words) != -(-size // 8):
        raise ValueError(
            f"{len(words)} beats, an image of {compiled.net.name!r} has {-(-size // 8)}"
        )
    data = np.ascontiguousarray(words, "<u8").view(np.int8 if tensor.signed else np.uint8)[:size]
    return data.reshape(1, height, width, -1)[..., :channels].transpose(0, 3, 1, 2).astype(np.int32)


class Predictor(uvm_subscriber):
    """Listens to the monitors of both input streams and of the registers; publishes ExpectedImages
    on `ap` and Controls on `control_ap`.

    A packet that nothing calls for fails the test, unless a soft reset follows: the rest of a
    packet that was given up is one for the accelerator too.
    """

    def build_phase(self):
        super().build_phase()
        self.networks = self.cdb_get("NETWORKS")
        self.ap = uvm_analysis_port("ap", self)
        self.control_ap = uvm_analysis_port("control_ap", self)
        self.compiled: Compiled | None = None
        self.problems: list[str] = []
        self.unfit: list[str] = []  # packets since the last soft reset that nothing calls for
        self.images = self.weights = 0

    def write(self, tt: PacketItem | RegisterItem):
        if isinstance(tt, PacketItem):
            getattr(self, f"_{tt.kind}")(tt.words)
        elif tt.write and tt.register == Register.CTRL:
            self._control(tt.value)

    def _control(self, value: int):
        started, aborted = bool(value & Ctrl.START), bool(value & Ctrl.SOFT_RESET)
        if aborted:
            self.images = self.weights = 0
        elif started:
            self.problems += self.unfit
        if aborted or started:
            self.unfit = []
            self.control_ap.write(Control(started, aborted))

    def expected(self, compiled: Compiled, image: np.ndarray) -> dict:
        """{layer: int32 [1, C, H, W]} of the layers that the program emits, in order."""
        tensors = expected_tensors(compiled.net, image)
        return {layer.name: tensors[layer.name] for layer in compiled.emitted}

    def _program(self, words: np.ndarray):
        self.compiled = next((c for c in self.networks if np.array_equal(c.program, words)), None)
        if self.compiled is None:
            self.unfit.append("a program was sent that is of none of the test's networks")

    def _weights(self, words: np.ndarray):
        self.weights += 1
        if self.compiled is None or not np.array_equal(words, self.compiled.weights):
            self.unfit.append(
                f"weights packet {self.weights} does not belong to the loaded program"
            )

    def _image(self, words: np.ndarray):
        self.images += 1
        if self.compiled is None:
            self.unfit.append(f"image {self.images} was sent without a program")
            return
        try:
            image = decode_image(self.compiled, words)
        except ValueError as error:
            self.unfit.append(f"image {self.images}: {error}")
            return
        tensors = self.expected(self.compiled, image)
        self.ap.write(ExpectedImage(self.images, self.compiled, tensors))

    def check_phase(self):
        super().check_phase()
        problems = self.problems + self.unfit
        if self.weights != self.images:
            problems.append(f"{self.images} images but {self.weights} weights packets were sent")
        assert not problems, f"{len(problems)} problems, first: {problems[0]}"
