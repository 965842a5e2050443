"""The register model's way to the bus: adapter, and what the model knows of a register at an
address."""

from __future__ import annotations

from pyuvm import uvm_access_e, uvm_reg, uvm_reg_adapter, uvm_status_e

from model.compiler.hardware import Hardware
from model.compiler.program_format import TILE_PIXELS
from tb.uvm.generated.register_model import clipq_regs
from tb.uvm.items import RegisterItem


class RegisterAdapter(uvm_reg_adapter):
    """Between the register model's operations and RegisterItems; a response other than OKAY is
    UVM_NOT_OK."""

    def reg2bus(self, rw):
        write = rw.kind == uvm_access_e.UVM_WRITE
        return RegisterItem(rw.addr, rw.data if write else None, write)

    def bus2reg(self, bus_item, rw):
        rw.data = bus_item.value or 0
        rw.status = uvm_status_e.UVM_NOT_OK if bus_item.response else uvm_status_e.UVM_IS_OK


def register_model() -> clipq_regs:
    """The generated model, locked and in its reset state."""
    model = clipq_regs("registers")
    model.build()
    model.lock_model()
    model.reset()
    return model


def build_parameters(hardware: Hardware) -> dict[tuple[str, str], int]:
    """{(register, field): value} of the fields that depend on the accelerator's parameters."""
    return {
        ("PARAMS", "NUM_MODULES"): hardware.num_modules,
        ("PARAMS", "TILE_PIXELS"): TILE_PIXELS,
        ("PARAMS", "FEATURE_KB"): hardware.bank_words // 32,
    }


def register_at(model: clipq_regs, address: int, write: bool) -> uvm_reg | None:
    """The register that may be accessed in this direction at this address, None where the answer is
    SLVERR."""
    register = model.get_default_map().get_reg_by_offset(address, read=not write)
    if register is None:
        return None
    forbidden = "RO" if write else "WO"
    return None if all(f.get_access() == forbidden for f in register.get_fields()) else register
