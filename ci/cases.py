"""Builds and runs the cases of ci/tests.yaml."""

from __future__ import annotations

from collections.abc import Mapping

from ci import netlist, registry
from host.simulation import runner
from host.simulation.rtl_index import RtlIndex


def run_test(
    name: str,
    sim: str = "verilator",
    params: Mapping[str, object] | None = None,
    seed: int = 1,
    waves: bool = False,
    *,
    jobs: int = 1,
) -> runner.Result:
    """Build and run one registered test with one set of parameters (None: the first of its matrix
    on that simulator).

    Raises RunnerError if the test or simulator is unknown; a model that does not build is a failed
    Result.
    """
    tests = registry.load().tests
    if name not in tests:
        raise runner.RunnerError(f"no test named {name!r}")
    cases = tests[name].cases(sim)
    if not cases:
        raise runner.RunnerError(
            f"test {name!r} does not run on {sim} (only on: {', '.join(tests[name].simulators)})"
        )
    parameters = cases[0].parameters if params is None else dict(params)
    return run_case(registry.Case(tests[name], sim, parameters), seed, waves, jobs=jobs)


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
    except (
        Exception
    ) as error:  # a missing module or a syntax error is this case's failure, not its caller's
        return runner.Result(
            False, str(error), 0.0, 0.0, seed, getattr(error, "log", None), None, ()
        )
    run_dir = (
        runner.BUILD
        / "run"
        / runner.slug(test.name, case.sim, case.parameters, waves, model.coverage)
    )
    env = {**(env or {}), **{k: str(v) for k, v in case.parameters.items()}, **test.env}
    return runner.simulate(
        model,
        test.module,
        seed=seed,
        env=env,
        filter=test.filter,
        run_dir=run_dir,
        timeout=test.timeout,
    )
