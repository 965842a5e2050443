"""Builds and runs the cases of ci/tests.yaml."""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Mapping

from ci import netlist, registry
from host.simulation import runner
from host.simulation.rtl_index import RtlIndex


def seed_of(case: registry.Case, seed: int) -> int:
    """The seed that `make regress SEED=seed` gives the case: 0 <= seed < 2^31."""
    return zlib.crc32(f"{seed} {case.key}".encode()) >> 1


def command(case: registry.Case, seed: int, settings: Mapping[str, str]) -> str:
    """The `make sim` command that runs the case again."""
    modules = case.parameters.get("NUM_MODULES")
    words = [f"make sim TEST={case.test.name} SIM={case.sim} SEED={seed}"]
    words += [f"MODULES={modules}"] if modules else []
    return " ".join([*words, *(f"{name}={shlex.quote(v)}" for name, v in settings.items())])


def model_key(case: registry.Case) -> str:
    """Equal for cases that share a model."""
    test = case.test
    facts = (test.toplevel, case.sim, case.parameters, test.defines, test.public, test.sources)
    return repr((*facts, test.netlist))


def covered_modules(tests: registry.Registry, index: RtlIndex) -> set[str]:
    """Modules in the hierarchies of all tests. Raises SourceError for a missing top level."""
    return set().union(*(index.closure(test.toplevel) for test in tests.tests.values()))


def build_case(
    case: registry.Case,
    waves: bool = False,
    *,
    coverage: bool = False,
    jobs: int = 1,
    index: RtlIndex | None = None,
) -> runner.Model:
    """The model that a case needs; raises like `build`."""
    test = case.test
    sources = (
        netlist.sources(test.toplevel, test.netlist, case.parameters, index)
        if test.netlist
        else test.sources or None
    )
    return runner.build(
        test.toplevel,
        sources,
        case.parameters,
        case.sim,
        defines=test.defines,
        public=test.public,
        waves=waves,
        coverage=coverage,
        jobs=jobs,
        index=None if sources else index,
    )


def run_case(
    case: registry.Case,
    seed: int,
    waves: bool = False,
    *,
    jobs: int = 1,
    model: runner.Model | None = None,
    env: Mapping[str, str] | None = None,
) -> runner.Result:
    """Run one case of the registry, building its model if none is given.

    A model that does not build is a failed Result. `env` are settings of the test bench; what the
    registry says about them goes before.
    """
    test = case.test
    try:
        model = model or build_case(case, waves, jobs=jobs)
    except Exception as error:  # this case's failure, not its caller's
        log = getattr(error, "log", None)
        return runner.Result(False, str(error), 0.0, 0.0, seed, log, None, ())
    name = runner.slug(test.name, case.sim, case.parameters, waves, model.coverage)
    return runner.simulate(
        model,
        test.module,
        seed=seed,
        env={**(env or {}), **{k: str(v) for k, v in case.parameters.items()}, **test.env},
        filter=test.filter,
        run_dir=runner.BUILD / "run" / name,
        timeout=test.timeout,
    )
