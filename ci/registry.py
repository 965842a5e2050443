"""Reads ci/tests.yaml: what tests there are, and the cases (parameters x simulators) each one
stands for."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from host.simulation.rtl_index import ROOT
from host.simulation.runner import SIMULATORS, Simulator
from model.common.errors import UserError, printable

REGISTRY = ROOT / "ci" / "tests.yaml"
Matrix = dict[str, Any] | list[dict[str, Any]]


class RegistryError(UserError):
    """tests.yaml says something that cannot be; the message names the entry and the key."""


def read(path: Path, kind: Any, error: type[UserError]) -> Any:
    """What a YAML file holds as a `kind`. Raises `error` naming the file, the entry and the key
    that is wrong."""
    try:
        empty = list if get_origin(kind) is list else dict
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or empty()
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as wrong:
        first = wrong.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise error(f"{path.name}: {printable(place)}: {printable(first['msg'])}") from None
    except (OSError, yaml.YAMLError) as problem:
        raise error(f"{path.name}: {problem}") from problem


def by_name(entries: object) -> object:
    """A list of entries as a mapping by their names. Raises ValueError for a name that stands
    twice."""
    named: dict[object, object] = {}
    for entry in entries if isinstance(entries, list) else []:
        name = entry.get("name") if isinstance(entry, dict) else None
        if name in named:
            raise ValueError(f"name {name!r} is used twice")
        named[name] = entry
    return named or entries or {}


def points(matrix: Matrix) -> list[dict[str, object]]:
    """The points of a matrix: a mapping of lists becomes all combinations, a list of mappings is
    taken as it is."""
    if isinstance(matrix, list):
        return [dict(point) for point in matrix] or [{}]
    values = [v if isinstance(v, list) else [v] for v in matrix.values()]
    return [dict(zip(matrix, combination)) for combination in itertools.product(*values)]


class Strict(BaseModel):
    """What a mapping of a YAML file becomes: no unknown keys, no wrong types."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class _Test(Strict):
    name: str
    about: str
    timeout: float = 600.0
    seconds: float = 20.0
    tags: tuple[str, ...] = ()


class PytestSuite(_Test):
    """One entry of `suites:`: a directory or file that plain pytest runs."""

    pytest: str


class CocotbTest(_Test):
    """One entry of `tests:`; the fields are documented at the top of tests.yaml."""

    toplevel: str
    module: str
    icarus: str = ""
    sources: tuple[str, ...] = ()
    matrix: Matrix = {}
    simulators: Annotated[
        dict[Simulator, Matrix | None],
        BeforeValidator(lambda sims: dict.fromkeys(sims) if isinstance(sims, list) else sims),
    ] = dict.fromkeys(SIMULATORS)
    defines: dict[str, object] = {}
    public: tuple[str, ...] = ()
    env: dict[str, str] = {}
    filter: str | None = None
    netlist: str | None = None

    def cases(self, sim: str | None = None, modules: int | None = None) -> list[Case]:
        """Cases of this test on one simulator (None: on all it allows).

        With `modules`, NUM_MODULES is pinned to that value, whether or not the matrix lists it.
        """
        cases: list[Case] = []
        for name, own in self.simulators.items():
            for point in points(self.matrix if own is None else own) if sim in (None, name) else ():
                pinned = {"NUM_MODULES": modules} if modules and "NUM_MODULES" in point else {}
                case = Case(self, name, {**point, **pinned})
                cases += [case] * (case not in cases)
        return cases

    @property
    def left_out_on_icarus(self) -> str:
        """What nobody sees who runs the test on Icarus alone; empty if nothing."""
        return self.icarus if "icarus" in self.simulators else "everything"


@dataclass(frozen=True)
class Case:
    """One run of one cocotb test: a simulator and one set of parameters."""

    test: CocotbTest
    sim: str
    parameters: dict[str, object]

    @property
    def key(self) -> str:
        """Name that is unique in the regression, e.g. `conv5x5[verilator,NUM_MODULES=4]`."""
        choices = [self.sim, *(f"{k}={v}" for k, v in self.parameters.items())]
        return f"{self.test.name}[{','.join(choices)}]"


class Registry(Strict):
    """All tests and suites by name, in the order of the file."""

    tests: Annotated[dict[str, CocotbTest], BeforeValidator(by_name)] = {}
    suites: Annotated[dict[str, PytestSuite], BeforeValidator(by_name)] = {}

    def benches(self, nightly: bool) -> list[CocotbTest]:
        """Those of a regression, with or without the long ones."""
        return [t for t in self.tests.values() if nightly or "nightly" not in t.tags]

    def named(self, name: str) -> CocotbTest:
        """The test of this name. Raises RegistryError, which lists those there are."""
        if name not in self.tests:
            known = "\n".join(f"  {t.name:24} {t.about}" for t in self.tests.values()) or "  (none)"
            reason = f"no test named {name!r}" if name else "which test? Give TEST=name"
            raise RegistryError(f"{reason}. Tests there are:\n{known}")
        return self.tests[name]


def load(path: Path = REGISTRY) -> Registry:
    """Read and check the registry. Raises RegistryError naming the entry and key that is wrong."""
    tests = read(path, Registry, RegistryError)
    for test in tests.tests.values():
        if not test.cases():
            raise RegistryError(f"{path.name}: {test.name}: matrix and simulators give no case")
    if twice := tests.tests.keys() & tests.suites.keys():
        raise RegistryError(f"{path.name}: name {min(twice)!r} is used twice")
    return tests
