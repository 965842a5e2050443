"""Generates everything that follows from model/compiler/program_format.yaml, the one source of the program format.

    rtl/generated/program_pkg.sv        constants, and one accessor function per field
    model/compiler/program_format.py    constants, and one table of fields per record
    docs/program-format.md              the same to read

With --check nothing is written: exit status 1 and the names of the files that are not what the source gives.
"""
from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click
import jinja2
import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "model" / "compiler" / "program_format.yaml"
TEMPLATES = {
    "rtl/generated/program_pkg.sv": "program_pkg.sv.j2",
    "model/compiler/program_format.py": "program_format.py.j2",
    "docs/program-format.md": "program-format.md.j2",
}
WORD_BITS = 64


class FormatError(ValueError):
    """A description that cannot be; the message names the record and the field."""


@dataclass(frozen=True)
class Constant:
    """A number; `width` is the bits of a value that stands in a field, None for a plain integer."""

    name: str
    value: int
    about: str
    width: int | None = None


@dataclass(frozen=True)
class Field:
    """Bits high:low of a word of a record."""

    name: str
    word: int
    low: int
    width: int
    about: str

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


def load(source: Path = SOURCE) -> tuple[list[Constant], list[Record]]:
    """Constants and records of the description. Raises FormatError for fields that overlap or lie outside."""
    data = yaml.safe_load(source.read_text(encoding="utf-8"))
    constants = [Constant(name, **facts) for name, facts in data["constants"].items()]
    records = []
    for name, facts in data["records"].items():
        fields = tuple(Field(field, *place) for field, place in facts["fields"].items())
        _check(name, facts["words"], fields)
        records.append(Record(name, facts["about"], facts["words"], fields))
    return constants, records


def _check(record: str, words: int, fields: tuple[Field, ...]) -> None:
    taken: dict[tuple[int, int], str] = {}
    for field in fields:
        if not (0 <= field.word < words and 0 <= field.low and 0 < field.width and field.high < WORD_BITS):
            raise FormatError(f"{record}.{field.name}: bits {field.high}:{field.low} of word {field.word} do not exist")
        for bit in range(field.low, field.high + 1):
            other = taken.setdefault((field.word, bit), field.name)
            if other != field.name:
                raise FormatError(f"{record}.{field.name}: bit {bit} of word {field.word} is {other}'s")


def generate(source: Path = SOURCE) -> dict[str, str]:
    """Contents of all generated files by path below the project root."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(ROOT / "ci" / "templates"), undefined=jinja2.StrictUndefined,
                                     trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    constants, records = load(source)
    return {path: environment.get_template(name).render(constants=constants, records=records) for path, name in TEMPLATES.items()}


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--check", is_flag=True, help="write nothing; fail if a generated file is stale")
def main(check: bool) -> None:
    files = generate()
    stale = [path for path, text in files.items() if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"stale: {path} (run ci/generate_program.py)", file=sys.stderr)
        else:
            (ROOT / path).write_text(files[path], encoding="utf-8")
            print(f"wrote {path}")
    sys.exit(bool(check and stale))


if __name__ == "__main__":
    main()
