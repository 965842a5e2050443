"""The generated register map: flags stand for the single bits that the description has."""

from ci import generate_regs
from host import register_map


def test_registers_of_single_bits_have_flags():
    seen = 0
    for register in generate_regs.registers(generate_regs.compile_rdl()):
        flags = getattr(register_map, register.class_name, None)
        if any(field.high > field.low for field in register.fields):
            assert flags is None, register.name
        else:
            bits = {field.name: 1 << field.low for field in register.fields}
            assert {flag.name: flag.value for flag in flags} == bits, register.name
            seen += 1
    assert seen


def test_error_codes_are_those_of_the_description():
    codes = generate_regs.error_codes(generate_regs.compile_rdl())
    assert {code.name: code.value for code in codes} == {
        code.name: code.value for code in register_map.ErrorCode
    }
