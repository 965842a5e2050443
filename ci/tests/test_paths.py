"""Paths, names and surroundings of the commands: any character, any folder, any environment."""

import os
import shlex
import shutil
import subprocess

import numpy as np
import pytest

from ci import registry
from host.simulation import runner
from host.simulation.rtl_index import ROOT
from model.network import save_network
from model.network.random_networks import random_input, random_network
from model.reference.integer import run_integer

ODD = "-a 'b' \"c\" [d] {e} $f ${PWD} $(id) `id`;g&h|i#j%k *? \\l é"
FILES = {"NET": f"{ODD}.clipq.npz", "IMAGES": f"{ODD}.npy", "OUT": f"{ODD}.out"}
DROPPED = [
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSAFEPATH",
    "PYTHONWARNINGS",
    "PYTHONSTARTUP",
    "PYTHONINSPECT",
    "PYTHONOPTIMIZE",
    "PYTHONPLATLIBDIR",
    "PYTHONEXECUTABLE",
    "PYTHONIOENCODING",
    "PYTHONUTF8",
    "PYTHONHASHSEED",
    "PYTHONMALLOC",
    "PYTHONTRACEMALLOC",
    "PYTHONPYCACHEPREFIX",
    "PYTHONINTMAXSTRDIGITS",
    "BASH_ENV",
    "ENV",
    "CDPATH",
    "SHELLOPTS",
    "GREP_OPTIONS",
    "POSIXLY_CORRECT",
    "PERL5OPT",
    "PERL5LIB",
    "MPLBACKEND",
    "TORCH_LOGS",
]
NONSENSE = dict.fromkeys(
    [
        *DROPPED,
        *[
            "VERILATOR_ROOT",
            "VERILATOR_BIN",
            "MAKEFILES",
            "GIT_DIR",
            "GIT_INDEX_FILE",
            "TMPDIR",
            "TMP",
            "TEMP",
            "CC",
            "CXX",
            "CXXFLAGS",
            "COCOTB_TEST_FILTER",
            "PYTEST_ADDOPTS",
        ],
    ],
    "nonsense",
) | {"SHELLOPTS": "noexec"}
CHOICES = dict(
    SIM="icarus",
    MODULES="8",
    BACKEND="torch",
    DATASET="cifar100",
    SEED="7",
    WAVES="1",
    PIXELS="1",
    JOBS="3",
    NIGHTLY="1",
    TEST="x",
    N="3",
    MODULE="x",
    HAND="1",
    MUTANT="x",
    PROOF="x",
    ARGS="--x",
)
COMMANDS = [
    "demo",
    "sim",
    "regress",
    "run",
    "accuracy",
    "train",
    "vectors",
    "perf",
    "lint",
    "coverage",
    "mutate",
    "formal",
]
MAKEFILE = str(ROOT / "Makefile")


def make(*arguments, cwd=ROOT, **env):
    """`make` as a shell starts it, without what an outer make left in the environment."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments],
        cwd=cwd,
        env={**inherited, **env},
        capture_output=True,
        text=True,
        check=False,
    )


def assignments(values):
    return [f"{name}={value}" for name, value in values.items()]


# ------------------------------------------------------------------------------------------ values


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """(folder with an odd name with a network and images of odd names, integers expected)"""
    folder = tmp_path_factory.mktemp("job") / ODD
    folder.mkdir()
    rng = np.random.default_rng(5)
    net = random_network(
        rng,
        stride=(1,),
        ops=("conv",),
        sizes=((6, 5),),
        channels=(3,),
        kernels=(1, 2),
        max_layers=2,
        max_macs=9_000,
    )
    images = random_input(rng, net, 2)
    save_network(net, folder / FILES["NET"])
    np.save(folder / FILES["IMAGES"], images)
    return folder, run_integer(net, images)


def check_run(job, done):
    folder, expected = job
    assert done.returncode == 0, done.stderr
    with np.load(folder / FILES["OUT"]) as out:
        assert np.array_equal(out["y"], expected)
    (folder / FILES["OUT"]).unlink()


def test_relative_files_from_elsewhere(job):
    check_run(job, make("-f", MAKEFILE, "run", *assignments(FILES), cwd=job[0]))


def test_doubled_dollars_are_those_of_make(job):
    files = {name: str(job[0] / value).replace("$", "$$") for name, value in FILES.items()}
    check_run(job, make("-C", str(ROOT), "run", *assignments(files), cwd="/"))


def test_home_and_environment(job):
    files = {name: f"~/{value}" for name, value in FILES.items()}
    check_run(job, make("run", **files, HOME=str(job[0])))


def test_relative_files_with_a_changed_folder(job):
    done = make("-C", str(ROOT), "run", *assignments(FILES), cwd=job[0])
    assert done.returncode and f"NET={ROOT}/{FILES['NET']}: no such file" in done.stderr


@pytest.mark.parametrize(
    "command, name, words",
    [("sim", "TEST", "no test named"), ("formal", "PROOF", "no proof named")],
)
def test_odd_names_arrive(command, name, words):
    done = make(command, f"{name}={ODD}")
    assert done.returncode and f"{words} {ODD!r}" in done.stderr


@pytest.mark.parametrize("name", ["MODULE", "MUTANT"])
def test_odd_mutants_arrive(name):
    done = make("-n", "mutate", f"{name}={ODD}")
    assert f"--{name.lower()}={ODD}" in shlex.split(done.stdout)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["help", "SIM=%"], "SIM=%: must be one of verilator icarus"),
        (["help", "MODULES=4 8"], "MODULES=4 8: must be one of 4 8 16"),
        (["help", "TEST=a\nb"], "TEST holds a line break"),
        (["help", "NET=a\nb"], "NET holds a line break"),
        (["help", "JOBS=1'"], "JOBS=1': must be a whole number"),
        (["help", "N=$(id)"], "N=$(id): must be a whole number"),
        (["help", "ARGS='a"], "ARGS='a: must be options as a shell takes them"),
        (["run", "NET=a'b", "IMAGES=x", "OUT=x"], f"NET={ROOT}/a'b: no such file"),
        (["run", "NET=~/x", "IMAGES=x", "OUT=x", "HOME="], "~ in a path needs HOME"),
    ],
)
def test_odd_values_are_refused_in_one_line(arguments, words):
    done = make(*arguments)
    assert done.returncode and words in done.stderr and len(done.stderr.splitlines()) == 1


def test_failed_download_is_one_line(job):
    done = make(
        "-f",
        MAKEFILE,
        "accuracy",
        f"NET={ROOT}/model/zoo/nin-cifar10.clipq.npz",
        "DATASET=cifar10",
        "CIFAR_ROOT=none '$",
        cwd=job[0],
        https_proxy="http://127.0.0.1:abc",
    )
    error, stopped = done.stderr.splitlines()
    assert f"{job[0]}/none '$/cifar-10-batches-py/batches.meta" in error and "make: ***" in stopped
    assert "nonnumeric port: 'abc'" in error and "set CIFAR_ROOT" in error


# ------------------------------------------------------------------------------------- environment


def commands(*arguments, **env):
    """What all commands would run."""
    return [
        make(
            "-n",
            command,
            "NET=/dev/null",
            "IMAGES=/dev/null",
            "OUT=x",
            "DATASET=cifar10",
            *arguments,
            **env,
        ).stdout
        for command in COMMANDS
    ]


def test_choices_count_on_the_command_line_only():
    plain = commands()
    assert all(plain) and commands(**CHOICES) == plain
    told = make("-n", "regress", *assignments(CHOICES)).stdout
    assert "--sim='icarus' --jobs='3' --seed='7' --nightly" in told


@pytest.fixture
def seen(tmp_path):
    """A function that returns the environment in which `make` starts a command."""
    shell = tmp_path / "bash"
    shell.write_text("#!/bin/sh\nenv -0\nexit 1\n")
    shell.chmod(0o755)

    def start(*arguments, **env):
        done = make("sim", *arguments, PATH=f"{tmp_path}:{os.environ['PATH']}", **env)
        return dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)

    return start


def test_commands_start_without_what_bends_them(seen):
    kept = {
        "PYTHON": "python3",
        "TORCH_INDEX": "x",
        "PIP_INDEX_URL": "x",
        "https_proxy": "x",
        "LC_ALL": "C",
        "CIFAR_ROOT": "/x",
    }
    found = seen(**NONSENSE, **kept)
    assert kept.items() <= found.items() and not found.keys() & {*DROPPED}


@pytest.mark.parametrize(
    "value, expected",
    [
        ("/a b", "/a b"),
        ("a'b", f"{ROOT}/a'b"),
        ("~/$x ~", "/home of/$x ~"),
        ("~", "/home of"),
        ("~x", f"{ROOT}/~x"),
        ("", ""),
    ],
)
def test_root_of_cifar_is_made_absolute(seen, value, expected):
    assert seen(CIFAR_ROOT=value, HOME="/home of")["CIFAR_ROOT"] == expected
    assert seen(f"CIFAR_ROOT={value}", HOME="/home of")["CIFAR_ROOT"] == expected


def test_nonsense_in_the_environment(job):
    env = {**NONSENSE, **CHOICES, "BASH_FUNC_cd%%": "() { exit 9; }"}
    arguments = [*assignments(FILES), "BACKEND=torch"]
    check_run(job, make("-f", MAKEFILE, "run", *arguments, cwd=job[0], **env))


@pytest.mark.parametrize("simulator", registry.SIMULATORS)
def test_simulations_with_nonsense_in_the_environment(simulator):
    if reason := runner.missing(simulator):
        pytest.skip(reason)
    done = make("sim", "TEST=skid_buffer", f"SIM={simulator}", **NONSENSE, **CHOICES)
    assert done.returncode == 0 and done.stdout.endswith(" passed, 0 failed\n"), done.stdout


# ------------------------------------------------------------------------------ checkouts, set-up

STUB = """#!/bin/sh
case "$*" in
  *isdir*) [ ! -e "$LOG.other" ] ;;
  "-m venv .venv")
    rm -f "$LOG.other" && mkdir -p .venv/bin && cp "$0" .venv/bin/python && echo made >>"$LOG" ;;
  *"pip install"*) env | grep ^PIP_ >>"$LOG" || true ;;
  "-m ci sim") pwd ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A function that copies what set-up needs into a new folder."""
    for tool in ("iverilog", "g++", "perl", "git", "my python"):
        (tmp_path / tool).write_text(STUB)
        (tmp_path / tool).chmod(0o755)

    def copy(name):
        shutil.copytree(ROOT / "ci", tmp_path / name / "ci")
        for file in ("Makefile", "requirements.txt"):
            shutil.copy(ROOT / file, tmp_path / name)
        return tmp_path / name

    return copy


def make_in(folder, command, **env):
    """`make` of a checkout, with stubs for Python and the tools."""
    stubs = folder.parent
    return make(
        command,
        cwd=folder,
        PATH=f"{stubs}:{os.environ['PATH']}",
        PYTHON=str(stubs / "my python"),
        LOG=str(stubs / "log"),
        **env,
    )


def output_of(folder, command, **env):
    """(lines that `make_in` prints, lines of the stubs' log)"""
    done = make_in(folder, command, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), (folder.parent / "log").read_text().splitlines()


def test_set_up_with_nonsense_in_the_environment(checkout):
    kept = {
        "PIP_INDEX_URL": "https://mirror",
        "PIP_FIND_LINKS": "/wheels",
        "PIP_CERT": "/x.pem",
        "PIP_PROXY": "x",
    }
    names = ("TARGET", "PREFIX", "ROOT", "USER", "DRY_RUN", "NO_DEPS", "CONSTRAINT", "PYTHON")
    wrong = dict.fromkeys((f"PIP_{name}" for name in names), "nonsense")
    lines, log = output_of(
        checkout("work"),
        "setup",
        **NONSENSE,
        **wrong,
        **kept,
        **{"BASH_FUNC_have%%": "() { return 1; }"},
    )
    assert lines[-1] == "setup: done" and {*assignments(kept)} <= {*log}
    assert not {*assignments(wrong)} & {*log}


def test_set_up_runs_once_and_again_after_a_move_and_an_update(checkout, tmp_path):
    folder = checkout("work")
    assert output_of(folder, "sim")[0][-1] == str(folder)
    lines, log = output_of(folder, "sim")
    assert lines == [str(folder)] and log.count("made") == 1
    moved = folder.rename(folder.with_name("moved"))
    lines, log = output_of(moved, "sim")
    assert lines[-1] == str(moved) and log.count("made") == 2
    (tmp_path / "log.other").touch()  # another version of Python
    lines, log = output_of(moved, "sim")
    assert lines[-1] == str(moved) and log.count("made") == 3
    linked = moved.with_name("linked")
    linked.symlink_to(moved)
    assert output_of(linked, "sim")[0] == [str(moved)]


@pytest.mark.parametrize("name", ["a b", "a'b", "a$b", "a#b", "a=b", "a,b", "é"])
def test_set_up_names_a_folder_in_which_verilator_cannot_build(checkout, name):
    folder = checkout(name)
    done = make_in(folder, "setup")
    assert done.returncode and not (folder / ".venv").exists()
    assert f"setup: Verilator cannot build in {folder}; move this folder to" in done.stderr


def test_help_and_clean_from_elsewhere(checkout, tmp_path):
    folder = checkout("a 'b $c")
    for place in (tmp_path, folder):
        (place / "build").mkdir()
    makefile = str(folder / "Makefile")
    assert make("-f", makefile, "help", cwd=tmp_path).stdout == make("help").stdout
    assert make("-f", makefile, "clean", cwd=tmp_path).returncode == 0
    assert (tmp_path / "build").exists() and not (folder / "build").exists()
