"""Predictor: from the packets that were sent to the tensors that must come back, through PyTorch
(checked against NumPy)."""

from __future__ import annotations

import numpy as np
from pyuvm import ConfigDB, uvm_analysis_port, uvm_subscriber

from host.register_map import Register, field
from model.compiler import Compiled
from tb.lib.accelerator import expected_tensors
from tb.uvm.config import KEY
from tb.uvm.items import Control, ExpectedImage, RegisterItem, StreamItem


def decode_image(compiled: Compiled, words: np.ndarray) -> np.ndarray:
    """The image that a stream of uint64 beats carries: int32 [1, C, H, W]. Raises ValueError for a
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
    """Listens to the monitors of both input streams and of the registers; publishes ExpectedImages,
    and Controls on `control_ap`."""

    def build_phase(self):
        super().build_phase()
        self.config = ConfigDB().get(self, "", KEY)
        self.ap = uvm_analysis_port("ap", self)
        self.control_ap = uvm_analysis_port("control_ap", self)
        self.compiled: Compiled | None = None
        self.problems: list[str] = []
        self.images = self.weights = 0

    def write(self, tt: StreamItem | RegisterItem):
        if isinstance(tt, StreamItem):
            getattr(self, f"_{tt.kind}")(tt.words)
        elif tt.write and tt.register == Register.CTRL:
            self._control(tt.value)

    def _control(self, value):
        control = Control(
            *(bool(field(value, Register.CTRL, name)) for name in ("START", "SOFT_RESET"))
        )
        if control.aborted:
            self.images = self.weights = 0
        self.control_ap.write(control)

    def expected(self, compiled: Compiled, image: np.ndarray) -> dict:
        """{layer: int32 [1, C, H, W]} of the layers that the program emits, in order."""
        tensors = expected_tensors(compiled.net, image)
        return {layer.name: tensors[layer.name] for layer in compiled.emitted}

    def _program(self, words):
        self.compiled = self.config.network_of(words)
        if self.compiled is None:
            self.problems.append("a program was sent that the configuration does not know")

    def _weights(self, words):
        self.weights += 1
        if self.compiled is None or not np.array_equal(words, self.compiled.weights):
            self.problems.append(
                f"weights packet {self.weights} does not belong to the loaded program"
            )

    def _image(self, words):
        self.images += 1
        if self.compiled is None:
            self.problems.append(f"image {self.images} was sent without a program")
        else:
            self.ap.write(
                ExpectedImage(
                    self.images,
                    self.compiled,
                    self.expected(self.compiled, decode_image(self.compiled, words)),
                )
            )

    def check_phase(self):
        super().check_phase()
        if self.weights != self.images:
            self.problems.append(
                f"{self.images} images but {self.weights} weights packets were sent"
            )
        assert not self.problems, f"{len(self.problems)} problems, first: {self.problems[0]}"
