"""The program format's generator: what a description may say, and that a stale file is found."""

import re
import subprocess
import sys

import pytest

from ci import generate_program, generated
from ci.generate_program import FormatError
from model.compiler import program_format
from model.compiler.errors import CompileError
from model.compiler.records import Field, Layout, decode, encode


def load(folder, fields, words=2, constants="  WIDE: {value: 12, about: bits of something}"):
    """Constants and the record of a description with these fields, as text."""
    path = folder / "format.yaml"
    lines = "\n".join(f"      {line}" for line in fields)
    path.write_text(
        f"constants:\n{constants}\nrecords:\n  record:\n    about: Some.\n"
        f"    words: {words}\n    fields:\n{lines}\n"
    )
    constants, (record,) = generate_program.load(path)
    return constants, record


@pytest.mark.parametrize(
    "fields, message",
    [
        (["a: [0, 0, 8, x]", "b: [0, 7, 1, y]"], "record.b: bit 7 of word 0 is a's"),
        (["a: [0, 60, 5, x]"], "record.a: bits 64:60 of word 0 do not exist"),
        (["a: [2, 0, 1, x]"], "record.a: bits 0:0 of word 2 do not exist"),
        (["a: [0, -1, 1, x]"], "record.a: bits -1:-1 of word 0 do not exist"),
        (["a: [0, 0, 0, x]"], "record.a: bits -1:0 of word 0 do not exist"),
        (["a: [0, 0, 8, x]", "a: [0, 8, 8, y]"], "a stands twice"),
        (["a: [0, 0, THIN, x]"], "record.a: 'THIN' is neither a number nor a constant"),
        (["a: [0, 0, WIDE * 2, x]"], r"record.a: 'WIDE \* 2' is neither a number nor a constant"),
        (["a: [0, 0, 8]"], r"record.a: \[0, 0, 8\] is not"),
        (["a: [0, 0, 8, x, unsigned]"], "record.a: .* is not"),
    ],
)
def test_a_field_that_cannot_be_is_named(tmp_path, fields, message):
    with pytest.raises(FormatError, match=message):
        load(tmp_path, fields)


def test_a_constant_named_twice_is_refused(tmp_path):
    with pytest.raises(FormatError, match="A stands twice"):
        load(
            tmp_path,
            ["a: [0, 0, 1, x]"],
            constants="  A: {value: 1, about: x}\n  A: {value: 2, about: y}",
        )


def test_constants_stand_for_widths_and_words(tmp_path):
    fields = ["a: [0, 0, WIDE, x]", "b: [0, 16, WIDE + 1, y]", "c: [11, 0, 1, z, signed]"]
    _, record = load(tmp_path, fields, words="WIDE")
    places = [(f.low, f.width, f.high) for f in record.fields]
    assert record.words == 12 and places == [(0, 12, 11), (16, 13, 28), (0, 1, 0)]
    assert [f.size.range for f in record.fields] == ["[WIDE-1:0] ", "[WIDE:0] ", ""]
    assert [str(f.size) for f in record.fields] == ["WIDE", "WIDE+1", "1"]
    assert [f.signed for f in record.fields] == [False, False, True]


def test_all_three_files_say_the_same():
    """Every field of the Python tables stands at the same bits in the package and on the page."""
    files = generate_program.generate()
    package, page = files["rtl/generated/program_pkg.sv"], files["docs/program-format.md"]
    names = vars(program_format)
    constants = {name: value for name, value in names.items() if isinstance(value, int)}
    layouts = {name.lower(): value for name, value in names.items() if isinstance(value, Layout)}
    assert len(layouts) == 6
    for record, layout in layouts.items():
        section = page.split(f"## {record.capitalize()}\n")[1].split("\n## ")[0]
        for name, field in layout.fields.items():
            body = re.search(
                rf"\n    {record}_{name} = "
                r"(?:words\[(\d+)\]|word)\[(\d+)\+:([\w+]+)\];\n",
                package,
            )
            word, low, width = body.groups(0)
            if record == "header":
                word = re.search(rf"HEADER_{name.upper()}_WORD = (\d+);", package)[1]
            width = sum(constants.get(part, 0) or int(part) for part in width.split("+"))
            assert (int(word), int(low), width) == field[:3], f"{record}.{name}"
            high = field.low + field.width - 1
            bits = f"{field.low}" if field.width == 1 else f"{high}:{field.low}"
            assert f"| {field.word}[{bits}] | `{name}` |" in section


def test_stale_files_are_found(tmp_path):
    files = {"same": "1\n", "changed": "2\n", "missing": "3\n"}
    (tmp_path / "same").write_text("1\n")
    (tmp_path / "changed").write_text("old\n")
    assert generated.stale(files, tmp_path) == ["changed", "missing"]


def test_the_generated_files_are_up_to_date():
    command = [sys.executable, "-m", "ci", "generate-program", "--check"]
    result = subprocess.run(command, cwd=generated.ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


LAYOUT = Layout(2, {"low": Field(0, 0, 4), "sign": Field(1, 60, 4, signed=True)})


def test_records_are_encoded_and_decoded():
    for values in ({"low": 15, "sign": -8}, {"low": 0, "sign": 7}):
        words = encode(LAYOUT, values, [2**64 - 1, 0])
        assert decode(LAYOUT, words) == values
        assert int(words[0]) | 15 == 2**64 - 1 and int(words[1]) & 2**60 - 1 == 0


@pytest.mark.parametrize("name, value", [("low", 16), ("low", -1), ("sign", 8), ("sign", -9)])
def test_a_value_that_does_not_fit_is_refused(name, value):
    with pytest.raises(CompileError, match=f"{name}: {value} does not fit in 4 bits"):
        encode(LAYOUT, {name: value})
