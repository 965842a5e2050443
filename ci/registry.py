"""Reads ci/tests.yaml: what tests there are, and the cases (parameters x simulators) each one
stands for."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from host.simulation.rtl_index import ROOT
from host.simulation.runner import SIMULATORS
from model.common.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

REGISTRY = ROOT / "ci" / "tests.yaml"
T = TypeVar("T", bound="DataclassInstance")


class RegistryError(UserError):
    """tests.yaml says something that cannot be; the message names the entry and the key."""


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


@dataclass(frozen=True)
class CocotbTest:
    """One entry of `tests:`; the fields are documented at the top of tests.yaml."""

    name: str
    about: str
    toplevel: str
    module: str
    sources: tuple[str, ...] = ()
    simulators: dict[str, tuple[dict[str, object], ...]] = field(default_factory=dict)
    defines: dict[str, object] = field(default_factory=dict)
    public: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    filter: str | None = None
    netlist: str | None = None
    timeout: float = 600.0
    seconds: float = 20.0
    tags: tuple[str, ...] = ()

    def cases(self, sim: str | None = None, modules: int | None = None) -> list[Case]:
        """Cases of this test on one simulator (None: on all it allows).

        With `modules`, NUM_MODULES is pinned to that value, whether or not the matrix lists it.
        """
        cases = []
        for name, points in self.simulators.items():
            if sim in (None, name):
                cases += [Case(self, name, point) for point in _pin(points, modules)]
        return cases

    def usual_cases(self, sim: str) -> list[Case]:
        """Cases with 4 modules; a test of a configuration that has another number keeps it."""
        cases = self.cases(sim)
        others = all(c.parameters.get("NUM_MODULES", 4) != 4 for c in cases)
        return cases if others else self.cases(sim, 4)

    @property
    def has_modules(self) -> bool:
        """Whether the top level takes NUM_MODULES."""
        return any("NUM_MODULES" in p for points in self.simulators.values() for p in points)


@dataclass(frozen=True)
class PytestSuite:
    """One entry of `suites:`: a directory or file that plain pytest runs."""

    name: str
    about: str
    pytest: str
    timeout: float = 600.0
    seconds: float = 20.0
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """All tests and suites by name, in the order of the file."""

    tests: dict[str, CocotbTest]
    suites: dict[str, PytestSuite]


def load(path: Path = REGISTRY) -> Registry:
    """Read and check the registry. Raises RegistryError naming the entry and key that is wrong."""
    data = read_yaml(path, {"tests", "suites"}, RegistryError)
    tests = [_test(raw) for raw in data.get("tests") or []]
    suites = [from_mapping(PytestSuite, raw, RegistryError) for raw in data.get("suites") or []]
    refuse_twins(path, [t.name for t in tests] + [s.name for s in suites], RegistryError)
    return Registry({t.name: t for t in tests}, {s.name: s for s in suites})


def read_yaml(path: Path, keys: set[str], error: type[UserError]) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `error` naming the file if it has other keys."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as problem:
        raise error(f"{path.name}: {problem}") from problem
    if not isinstance(data, dict) or set(data) - keys:
        raise error(f"{path.name}: top-level keys must be {', '.join(map(repr, sorted(keys)))}")
    return data


def from_mapping(cls: type[T], raw: dict[str, Any], error: type[UserError]) -> T:
    """A dataclass from a mapping of its fields, lists as tuples. Raises `error` naming the entry
    and the key that is missing or unknown."""
    if not isinstance(raw, dict):
        raise error(f"entry {raw!r} is not a mapping")
    known = {f.name: f for f in dataclasses.fields(cls)}
    name, absent = raw.get("name", "?"), dataclasses.MISSING
    for key, spec in known.items():
        if key not in raw and spec.default is absent and spec.default_factory is absent:
            raise error(f"entry {name!r}: key {key!r} is missing")
    for key in sorted(set(raw) - set(known)):
        raise error(f"entry {name!r}: unknown key {key!r}")
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in raw.items()}
    return cls(**values)


def refuse_twins(path: Path, names: list[str], error: type[UserError]) -> None:
    """Raises `error` for a name that stands twice in a file."""
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise error(f"{path.name}: name {twice[0]!r} is used twice")


def named(tests: Registry, name: str) -> CocotbTest:
    """The test of this name. Raises RegistryError, which lists those there are."""
    if name not in tests.tests:
        known = "\n".join(f"  {t.name:24} {t.about}" for t in tests.tests.values()) or "  (none)"
        reason = f"no test named {name!r}" if name else "which test? Give TEST=name"
        raise RegistryError(f"{reason}. Tests there are:\n{known}")
    return tests.tests[name]


def _test(raw: dict[str, Any]) -> CocotbTest:
    if not isinstance(raw, dict):
        raise RegistryError(f"entry {raw!r} is not a mapping")
    own, name = dict(raw), raw.get("name", "?")
    matrix = points(name, own.pop("matrix", None) or {})
    allowed = own.get("simulators") or list(SIMULATORS)
    if isinstance(allowed, list):
        allowed = dict.fromkeys(allowed)
    if unknown := sorted(set(allowed) - set(SIMULATORS)):
        known = ", ".join(SIMULATORS)
        raise RegistryError(f"test {name!r}: unknown simulator {unknown[0]!r} (there are: {known})")
    own["simulators"] = {
        sim: tuple(matrix if its is None else points(name, its)) for sim, its in allowed.items()
    }
    own["env"] = {key: str(value) for key, value in (own.get("env") or {}).items()}
    return from_mapping(CocotbTest, own, RegistryError)


def points(name: str, matrix: dict | list) -> list[dict[str, object]]:
    """The points of a matrix: a mapping of lists becomes all combinations, a list of mappings is
    taken as it is. `name` is for the error."""
    if isinstance(matrix, list):
        return [dict(point) for point in matrix] or [{}]
    if not isinstance(matrix, dict):
        raise RegistryError(f"entry {name!r}: matrix must be a mapping or a list of mappings")
    values = [v if isinstance(v, list) else [v] for v in matrix.values()]
    return [dict(zip(matrix, combination)) for combination in itertools.product(*values)]


def _pin(points: tuple[dict[str, object], ...], modules: int | None) -> list[dict[str, object]]:
    if modules is None:
        return [dict(p) for p in points]
    pinned = [{**p, "NUM_MODULES": modules} if "NUM_MODULES" in p else dict(p) for p in points]
    return [p for i, p in enumerate(pinned) if p not in pinned[:i]]
