"""A test that fails, hangs, dies, does not exist or is not compiled must never count as passed."""

import concurrent.futures as futures
import os
import time

import pytest

from host.simulation import runner

pytestmark = pytest.mark.usefixtures("own_build_folder")


def test_good_test_passes(toy):
    result = toy.run("test_adds_one", seed=77, env={"COLOUR": "blue"})
    assert result.passed and [t.status for t in result.tests] == ["passed"] and not result.error
    log = result.log.read_text()
    assert "with 77" in log and "COLOUR blue" in log


def test_a_folder_serves_one_run_at_a_time(toy):
    """While another run holds it, nothing in it is touched."""
    toy.build()
    theirs = toy.folder / "run" / "sim.log"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("theirs")
    with futures.ThreadPoolExecutor(1) as pool:
        with runner.locked(toy.folder / ".run.lock"):
            job = pool.submit(toy.run, "test_adds_one")
            time.sleep(1)
            assert not job.done() and theirs.read_text() == "theirs"
        assert job.result().passed and "theirs" not in theirs.read_text()


def test_failing_test_fails(toy):
    result = toy.run("test_adds_one|test_fails")
    assert not result.passed and len(result.tests) == 2
    assert "planted failure" in result.error


def test_filter_without_match_fails(toy):
    result = toy.run("no_such_function")
    assert not result.passed and "no test was executed" in result.error


def test_only_skipped_tests_fail(toy):
    (toy.folder / "all_skipped.py").write_text(
        "import cocotb\n@cocotb.test(skip=True)\nasync def test_x(dut):\n    pass\n"
    )
    result = toy.run(None, module="all_skipped")
    assert not result.passed and [t.status for t in result.tests] == ["skipped"]


def test_unknown_python_module_fails(toy):
    assert not toy.run(None, module="no_such_module").passed


def test_hanging_test_is_killed(toy):
    start = time.monotonic()
    result = toy.run("test_hangs", timeout=3.0)
    assert not result.passed and "no end after 3 s" in result.error
    assert time.monotonic() - start < 60


def test_dying_simulator_fails(toy):
    assert not toy.run("test_dies").passed


@pytest.mark.parametrize("kind", [1, 2])
def test_error_of_the_simulator_fails(toy, kind):
    """$error and a failing assertion at time 0: Icarus only prints them, and the cocotb test
    passes."""
    result = toy.run("test_adds_one", COMPLAIN=kind)
    assert not result.passed and "the simulator reported" in result.error


def test_parameter_reaches_the_design(toy):
    assert not toy.run("test_adds_one", WIDTH=2).passed  # 4 does not fit two bits


def test_unknown_parameter_is_an_error(toy):
    with pytest.raises(runner.RunnerError):
        toy.build(NO_SUCH_PARAMETER=1)


def test_syntax_error_does_not_build(toy, tmp_path):
    bad = tmp_path / "toy.sv"
    bad.write_text("module toy(input wire clk_i);\n initial begin oops\nendmodule\n")
    with pytest.raises(runner.RunnerError) as caught:
        runner.build("toy", [bad], {}, toy.sim)
    assert caught.value.log.exists()


def test_content_decides_about_rebuilding(toy):
    """A model is reused until a byte of its source changes, whatever the time stamps say."""
    text = toy.source.read_text()
    stamp = toy.source.stat()
    try:
        assert toy.run("test_adds_one").passed
        assert toy.build().cached
        toy.source.write_text(text.replace("1'b1", "2'd2"))
        os.utime(toy.source, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        assert not toy.run("test_adds_one").passed
    finally:
        toy.source.write_text(text)
    assert toy.run("test_adds_one").passed


@pytest.mark.parametrize("fact", ["PACKAGES", "tools", "_compiler"])
def test_other_packages_and_tools_have_other_models(monkeypatch, fact):
    """As after an update of Python, of the compiler or of Icarus."""
    digests = set()
    for value in ("a", "b"):
        found = value if fact == "PACKAGES" else lambda *_, v=value: v
        monkeypatch.setattr(runner, fact, found)
        recipe = runner._Recipe("verilator", "toy", {}, {}, [], False, False)
        digests |= {runner._digest(recipe, []), runner._runtime_dir(recipe).name}
    assert len(digests) == 4


def test_the_compiler_and_the_simulators_count_by_their_versions():
    assert runner._compiler().startswith("g++") and any(map(str.isdigit, runner._compiler()))
    if not runner.missing("icarus"):
        assert runner.tools("icarus")[-1].startswith("Icarus Verilog version")


def test_only_models_that_nobody_builds_or_used_for_a_while_go(tmp_path):
    def model(name, age, whole=True):
        folder = tmp_path / name
        folder.mkdir()
        if whole:
            (folder / "built.json").touch()
        os.utime(folder / "built.json" if whole else folder, (time.time() - age,) * 2)
        return folder

    long, short = runner.KEEP_OLD_MODELS + 60, runner.KEEP_OLD_MODELS - 60
    old, interrupted = model("old", long), model("interrupted", long, False)
    current, fresh = model("current", long), model("fresh", short)
    begun, built = model("begun", short, False), model("built", long, False)
    with runner.locked(tmp_path / "built.lock"):
        runner._drop_old_models(tmp_path, current)
    assert not old.exists() and not interrupted.exists()
    assert all(path.exists() for path in (current, fresh, begun, built))
