"""The register model, generated from SystemRDL, and the scoreboard that holds every access against
it."""

from __future__ import annotations

from cocotbext.axi import AxiResp
from pyuvm import uvm_predict_e, uvm_reg, uvm_subscriber

from model.compiler.hardware import Hardware
from model.compiler.program_format import TILE_PIXELS
from tb.uvm.axi_lite import RegisterItem
from tb.uvm.generated.register_model import clipq_regs


def register_model() -> clipq_regs:
    """The generated model, locked and in its reset state."""
    model = clipq_regs("registers")
    model.build()
    model.lock_model()
    model.reset()
    return model


def register_at(model: clipq_regs, address: int, write: bool) -> uvm_reg | None:
    """The register that may be accessed in this direction at this address, None where the answer is
    SLVERR."""
    register = model.get_default_map().get_reg_by_offset(address, read=not write)
    if register is None:
        return None
    forbidden = "RO" if write else "WO"
    return None if all(f.get_access() == forbidden for f in register.get_fields()) else register


def build_parameters(hardware: Hardware) -> dict[tuple[str, str], int]:
    """{(register, field): value} of the fields that depend on the accelerator's parameters."""
    return {
        ("PARAMS", "NUM_MODULES"): hardware.num_modules,
        ("PARAMS", "TWO_PLANES"): int(hardware.planes == 2),
        ("PARAMS", "TILE_PIXELS"): TILE_PIXELS,
        ("PARAMS", "FEATURE_KB"): hardware.bank_words // 32,
    }


class RegisterScoreboard(uvm_subscriber):
    """Every access against the register model: SLVERR exactly where the model has nothing, and the
    fields that only the host changes. One that checked nothing has failed."""

    def build_phase(self):
        super().build_phase()
        self.model = self.cdb_get("REGISTERS")
        self.parameters = build_parameters(self.cdb_get("HARDWARE"))
        self.checked = self.refused = 0
        self.problems: list[str] = []

    def write(self, tt: RegisterItem):
        register = register_at(self.model, tt.register, tt.write)
        if tt.response != (AxiResp.OKAY if register else AxiResp.SLVERR):
            self.problems.append(f"unexpected response: {tt}")
        elif register is None:
            self.refused += 1
        elif tt.write:
            register.predict(tt.value, kind=uvm_predict_e.UVM_PREDICT_WRITE)
        else:
            self._read(register, tt.value)

    def _read(self, register: uvm_reg, value: int):
        for field in register.get_fields():
            name = (register.get_name(), field.get_name())
            volatile = field.is_volatile()
            expected = self.parameters.get(name) if volatile else field.get_mirrored_value()
            if expected is None:
                continue
            self.checked += 1
            got = field.extract_from_register(value)
            if got != expected:
                self.problems.append(
                    f"register {'.'.join(name)}: expected {expected:#x}, got {got:#x}"
                )

    def check_phase(self):
        super().check_phase()
        assert not self.problems, f"{len(self.problems)} problems, first: {self.problems[0]}"
        assert self.checked, "the register scoreboard checked nothing"

    def report_phase(self):
        super().report_phase()
        self.logger.info(
            "%d register fields equal, %d accesses refused as they must", self.checked, self.refused
        )
