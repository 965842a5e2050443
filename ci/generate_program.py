"""Generates everything that follows from model/compiler/program_format.yaml, the one source of the
program format.

    rtl/generated/program_pkg.sv        constants, and one accessor function per field
    model/compiler/program_format.py    constants, and one table of fields per record
    host/c/clipq_program.h              the same for C
    docs/program-format.md              the same to read

With --check nothing is written: exit status 1 and the names of the files that are not what the
source gives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from ci import generated
from host.simulation.rtl_index import ROOT
from model.common.command import Command

SOURCE = ROOT / "model" / "compiler" / "program_format.yaml"
TEMPLATES = {
    "rtl/generated/program_pkg.sv": "program_pkg.sv.j2",
    "model/compiler/program_format.py": "program_format.py.j2",
    "host/c/clipq_program.h": "clipq_program.h.j2",
    "docs/program-format.md": "program-format.md.j2",
}
WORD_BITS = 64
_NUMBER = re.compile(r"(?P<name>[A-Z]\w*)(?: \+ (?P<more>\d+))?")


class FormatError(ValueError):
    """A description that cannot be; the message names the record and the field."""


@dataclass(frozen=True)
class Constant:
    """A number; `width` is the bits of a value that stands in a field, None for a plain integer."""

    name: str
    value: int
    about: str
    width: int | None = None

    @property
    def literal(self) -> str:
        """In hexadecimal digits where decimal ones would say nothing."""
        return f"{self.value:#x}" if self.value > 9999 else str(self.value)


@dataclass(frozen=True)
class Size:
    """A width as its description says it: a number, or a constant and what is added to it."""

    name: str
    more: int

    def __str__(self) -> str:
        return "+".join(part for part in (self.name, str(self.more or "")) if part) or "0"

    @property
    def range(self) -> str:
        """Of a vector of this width, and a blank; nothing for a single bit."""
        if not self.name:
            return f"[{self.more - 1}:0] " if self.more > 1 else ""
        return f"[{Size(self.name, self.more - 1) if self.more else f'{self.name}-1'}:0] "


@dataclass(frozen=True)
class Field:
    """Bits high:low of a word of a record."""

    name: str
    word: int
    low: int
    size: Size
    width: int
    about: str
    signed: bool

    @property
    def high(self) -> int:
        return self.low + self.width - 1


@dataclass(frozen=True)
class Record:
    """A number of 64-bit words with named fields."""

    name: str
    about: str
    words: int
    fields: tuple[Field, ...]


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [self.construct_object(key) for key, _ in node.value]
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise FormatError(f"line {node.start_mark.line + 1}: {', '.join(twice)} stands twice")
        return super().construct_mapping(node, deep)


def load(source: Path = SOURCE) -> tuple[list[Constant], list[Record]]:
    """Constants and records of the description.

    Raises FormatError for names used twice and fields that cannot be.
    """
    data = yaml.load(source.read_text(encoding="utf-8"), _Loader)
    constants = [Constant(name, **facts) for name, facts in data["constants"].items()]
    values = {constant.name: constant.value for constant in constants}
    records = []
    for name, facts in data["records"].items():
        fields = tuple(
            _field(f"{name}.{field}", place, values) for field, place in facts["fields"].items()
        )
        words = _value(_size(name, facts["words"], values), values)
        _check(name, words, fields)
        records.append(Record(name, facts["about"], words, fields))
    return constants, records


def _field(name: str, place: list, values: dict[str, int]) -> Field:
    if not 4 <= len(place) <= 5 or place[4:] not in ([], ["signed"]):
        raise FormatError(
            f"{name}: {place} is not [word, lowest bit, width, what it holds], "
            "with or without `signed`"
        )
    word, low, size, about, *signed = place
    size = _size(name, size, values)
    return Field(name.partition(".")[2], word, low, size, _value(size, values), about, bool(signed))


def _size(name: str, text: int | str, values: dict[str, int]) -> Size:
    if isinstance(text, int):
        return Size("", text)
    match = _NUMBER.fullmatch(text)
    if not match or match["name"] not in values:
        raise FormatError(
            f"{name}: {text!r} is neither a number nor a constant, with or without a number added"
        )
    return Size(match["name"], int(match["more"] or 0))


def _value(size: Size, values: dict[str, int]) -> int:
    return values.get(size.name, 0) + size.more


def _check(record: str, words: int, fields: tuple[Field, ...]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for field in fields:
        if not (0 <= field.word < words and 0 <= field.low <= field.high < WORD_BITS):
            raise FormatError(
                f"{record}.{field.name}: bits {field.high}:{field.low} "
                f"of word {field.word} do not exist"
            )
        for bit in range(field.low, field.high + 1):
            other = taken.setdefault((field.word, bit), field.name)
            if other != field.name:
                raise FormatError(
                    f"{record}.{field.name}: bit {bit} of word {field.word} is {other}'s"
                )


def generate(source: Path = SOURCE) -> dict[str, str]:
    """Contents of all generated files by path below the project root."""
    constants, records = load(source)
    return generated.render(TEMPLATES, constants=constants, records=records)


@click.command(cls=Command, help=__doc__.split("\n\n")[0])
@click.option("--check", is_flag=True, help="write nothing; fail if a generated file is stale")
def main(check: bool) -> None:
    try:
        files = generate()
    except FormatError as error:
        raise SystemExit(f"error: {SOURCE.relative_to(ROOT)}: {error}") from None
    generated.update(files, check, "generate-program")
