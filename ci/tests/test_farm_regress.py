"""The regression on a cluster: a failure fails it, what has passed is not run again, dying workers
end in a verdict, and another checkout is refused."""

import contextlib
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from ci import cases, farm_regress, registry, testplan
from ci.tests import conftest
from host import cluster
from host.simulation import runner
from host.simulation.rtl_index import ROOT
from model.common.errors import UserError

KILLS = """
import os, signal
from pathlib import Path
import cocotb
from tb.lib import coverage

@cocotb.test()
async def test_kills(dut):
    mark = Path(os.environ["MARK"])
    if "ALWAYS" in os.environ or not mark.exists():
        mark.touch()
        os.kill(os.getppid(), signal.SIGKILL)  # the worker
    coverage.hit("error", sorted(coverage.GROUPS["error"])[0])
"""
SIM = "icarus"
pytestmark = pytest.mark.skipif(bool(runner.missing(SIM)), reason=f"no {SIM}")


@pytest.fixture
def farm(tmp_path, monkeypatch):
    """Benches by name, of which a test chooses, and `run` with what it chose."""
    monkeypatch.setattr(farm_regress, "FOLDER", tmp_path / "kept")
    found = Farm(tmp_path)
    monkeypatch.setattr(registry, "load", lambda: found.registry)
    yield found
    for case in found.cases.values():
        folder = cases.run_dir(case)
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)


class Farm:
    """A toy with a bench that passes, one that fails, and two that kill their workers."""

    def __init__(self, folder):
        (folder / "toy.sv").write_text(conftest.RTL)
        (folder / "farmed_toy.py").write_text(conftest.TESTS)
        (folder / "farmed_killer.py").write_text(KILLS)
        env = {"PYTHONPATH": str(folder), "MARK": str(folder / "mark")}
        toy = {"about": "", "toplevel": "toy", "sources": (str(folder / "toy.sv"),)}
        toy |= {"simulators": {SIM: None}}

        def bench(name, module, filter, **more):
            facts = {**toy, "module": module, "filter": filter, "env": {**env, **more}}
            return registry.CocotbTest(name=name, **facts)

        self.all = {
            "farmed_good": bench("farmed_good", "farmed_toy", "adds_one"),
            "farmed_bad": bench("farmed_bad", "farmed_toy", "adds_one|fails"),
            "farmed_once": bench("farmed_once", "farmed_killer", None),
            "farmed_always": bench("farmed_always", "farmed_killer", None, ALWAYS="1"),
        }
        self.cases = {name: test.cases()[0] for name, test in self.all.items()}

    def choose(self, *names):
        """What the registry has."""
        self.registry = registry.Registry(tests={name: self.all[name] for name in names})

    def run(self, *arguments):
        """(exit status, output) of the command."""
        local = [] if "--scheduler" in arguments else ["--workers", "1"]
        done = CliRunner().invoke(farm_regress.main, [*local, *arguments])
        return done.exit_code, done.output


class Future:
    """What a worker has computed at once."""

    def __init__(self, case):
        self.outcome = farm_regress.run_case(case, 1, cases.digest())

    def exception(self):
        return None

    def result(self):
        return self.outcome


@pytest.mark.timeout(600)
def test_verdicts_of_a_cluster(farm):
    """One worker, which dies once. What has passed is kept, what has failed is run again."""
    farm.choose("farmed_good", "farmed_bad", "farmed_once")
    status, text = farm.run()
    assert status == 1 and text.endswith("3 passed, 1 failed\n"), text
    bad = farm.cases["farmed_bad"]
    assert f"to reproduce: {cases.command(bad, cases.seed_of(bad, 1), {})}\n" in text
    assert text.count("to reproduce") == 1 and "planted failure" in text
    assert f"\n1 of {len(testplan.declared())} coverage points hit\n" in text
    farm.choose("farmed_good", "farmed_bad")
    status, text = farm.run()
    assert status == 1 and "1 of 2 cases to run" in text and "2 passed, 1 failed" in text, text
    kept = [len(farm_regress.Store(seed).kept([farm.cases["farmed_good"]])) for seed in (1, 2)]
    assert kept == [1, 0]


@pytest.mark.timeout(600)
def test_a_case_that_kills_its_workers_fails(farm):
    import dask

    farm.choose("farmed_always")
    with dask.config.set({"distributed.scheduler.allowed-failures": 1}):
        status, text = farm.run()
    assert status == 1 and "each worker that ran it died" in text, text
    assert text.endswith("0 passed, 1 failed\n") and not any(farm_regress.FOLDER.rglob("*.json"))


def test_it_continues_where_it_was_stopped(farm, monkeypatch):
    def stopped(client, todo, *_, **__):
        yield todo[0], Future(todo[0])
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "connected", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cluster, "completed", stopped)
    farm.choose("farmed_good", "farmed_bad")
    status, text = farm.run()
    assert status == 130 and "passed, " not in text, text
    monkeypatch.setattr(cluster, "completed", lambda *_, **__: [])
    farm.choose("farmed_good")
    status, text = farm.run()
    assert status == 0 and "0 of 1 cases" in text and text.endswith("1 passed, 0 failed\n"), text


def test_nothing_that_ran_is_no_pass(farm):
    farm.choose()
    assert farm.run()[0] == 1


def test_other_sources_are_refused(farm):
    with pytest.raises(UserError, match="give all the same checkout"):
        farm_regress.run_case(farm.cases["farmed_good"], 1, "0" * 16)


@pytest.mark.timeout(600)
def test_a_worker_of_another_checkout_is_refused(farm, tmp_path):
    from distributed import LocalCluster

    other = tmp_path / "other"
    other.mkdir()
    for path in (p for p in ROOT.iterdir() if p.name not in ("host", "build")):
        (other / path.name).symlink_to(path)
    shutil.copytree(ROOT / "host", other / "host")
    with (other / "host" / "driver.py").open("a") as file:
        file.write("# other\n")
    farm.choose("farmed_good")
    words = [sys.executable, "-m", "dask", "worker", "--no-dashboard"]
    with (
        LocalCluster(n_workers=0, dashboard_address="localhost:0") as local,
        subprocess.Popen([*words, local.scheduler_address], cwd=other) as worker,
    ):
        try:
            status, text = farm.run("--scheduler", local.scheduler_address)
        finally:
            worker.terminate()
    assert status == 1 and "a worker has other sources or tools" in text, text
