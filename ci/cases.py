"""Builds and runs the cases of ci/tests.yaml."""

from __future__ import annotations

import hashlib
import shlex
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ci import netlist, registry, results
from host.simulation import runner

TAIL_LINES = 40  # of a failure's log


def seed_of(case: registry.Case, seed: int) -> int:
    """The seed that `make regress SEED=seed` gives the case: 0 <= seed < 2^31."""
    return zlib.crc32(f"{seed} {case.key}".encode()) >> 1


def command(case: registry.Case, seed: int, settings: Mapping[str, str]) -> str:
    """The `make sim` command that runs the case again."""
    modules = case.parameters.get("NUM_MODULES")
    words = [f"make sim TEST={case.test.name} SIM={case.sim} SEED={seed}"]
    words += [f"MODULES={modules}"] if modules else []
    return " ".join([*words, *(f"{name}={shlex.quote(v)}" for name, v in settings.items())])


def digest() -> str:
    """Of what decides a case's outcome beside its seed: the sources and the tools."""
    there = [sim for sim in runner.SIMULATORS if not runner.missing(sim)]
    facts = [results.sources(), *map(runner.tools, there)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def model_key(case: registry.Case) -> str:
    """A text that is the same for cases that share a model."""
    own = case.test.model_dump(include={"toplevel", "defines", "public", "sources", "netlist"})
    return repr((case.sim, case.parameters, own))


def run_dir(case: registry.Case, waves: bool = False, coverage: bool = False) -> Path:
    """Where the case leaves its log, results and waves."""
    slug = runner.slug(case.test.name, case.sim, case.parameters, waves, coverage)
    return runner.BUILD / "run" / slug


def build_case(case: registry.Case, **options: Any) -> runner.Model:
    """The model that a case needs. `options` are those of `build` (waves, coverage, jobs, index);
    raises like it."""
    test = case.test
    sources: Sequence[Path | str] = test.sources
    if test.netlist:
        index = options.get("index")
        sources = netlist.sources(test.toplevel, test.netlist, case.parameters, index)
    facts: dict[str, Any] = {"defines": test.defines, "public": test.public}
    return runner.build(test.toplevel, sources, case.parameters, case.sim, **facts, **options)


def run_case(
    case: registry.Case,
    seed: int,
    waves: bool = False,
    coverage: bool = False,
    *,
    env: Mapping[str, str] | None = None,
) -> runner.Result:
    """Build and run one case of the registry.

    A model that does not build is a failed Result. `env` are settings of the test bench; what the
    registry says about them goes before.
    """
    test, sources = case.test, results.sources()  # as they are now
    try:
        model = build_case(case, waves=waves, coverage=coverage, jobs=2)
    except Exception as error:  # this case's failure, not its caller's
        return runner.Result(False, str(error), 0.0, 0.0, getattr(error, "log", None))
    return runner.simulate(
        model,
        test.module,
        seed=seed,
        env={**(env or {}), **{k: str(v) for k, v in case.parameters.items()}, **test.env},
        filter=test.filter,
        run_dir=run_dir(case, waves, coverage),
        timeout=test.timeout,
        sources=sources,
    )
