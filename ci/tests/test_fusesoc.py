"""The core for FuseSoC, read by FuseSoC."""

import os
import re
import subprocess
import sys
import tomllib

import yaml

from host.simulation.rtl_index import ROOT, RtlIndex


def test_the_core_of_fusesoc_lists_the_sources_of_the_accelerator(tmp_path):
    (tmp_path / "rtl").symlink_to(ROOT / "rtl")
    (tmp_path / "clipq.core").write_bytes((ROOT / "clipq.core").read_bytes())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = f"clipq:accelerator:clipq_accel:{project['version']}"
    command = [sys.executable, "-m", "fusesoc.main", "--cores-root", tmp_path]
    command += ["run", "--target=lint", "--setup", "--no-export"]
    command += ["--build-root", tmp_path / "build", name]
    homes = {"XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run(command, env={**os.environ, **homes}, cwd=tmp_path, check=True)
    (made,) = (tmp_path / "build").rglob("*.eda.yml")
    design = yaml.safe_load(made.read_text())
    files = [(made.parent / entry["name"]).resolve() for entry in design["files"]]
    assert files[0] == ROOT / "rtl" / "lint_waivers.vlt"
    assert files[1:] == RtlIndex(ROOT / "rtl").files("clipq_accel")
    top = (ROOT / "rtl" / "clipq_accel.sv").read_text()
    defaults = dict(re.findall(r"parameter (\w+) += (\d+)", top))
    found = {key: entry["default"] for key, entry in design["parameters"].items()}
    assert {**found, **{key: int(value) for key, value in defaults.items()}} == found
    assert design["toplevel"] == "clipq_accel"
