"""The model card: how a network was made and what it is worth."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import torch
import yaml


def commit() -> str:
    """The commit of the code, with "+" where files were changed since; "unknown" without git."""
    say = ["git", "describe", "--always", "--dirty=+", "--abbrev=7", "--exclude=*"]
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(say, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def hardware(device: torch.device, threads: int) -> str:
    """What it was trained on."""
    if device.type == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    _, _, name = text.partition("model name")
    name = name.partition("\n")[0].strip(" :\t")
    return f"{threads} threads of {name or platform.machine()}"


def markdown(project: Any, accuracies: dict[str, dict[str, float]]) -> str:
    """The card as a page. accuracies: {network: {split: 0..1}}."""
    sets, recipe = project.sets, project.recipe
    seconds = {name: project.seconds(name) for name in project.stages}
    parts = ", ".join(f"{name} {taken:.0f} s" for name, taken in seconds.items())
    settings = {key: value for key, value in recipe.settings.items() if value is not None}
    lines = [
        f"# {recipe.name}",
        "",
        "| | validation | test |",
        "|---|---:|---:|",
        *(
            f"| {k} | {100 * v['val']:.2f} % | {100 * v['test']:.2f} % |"
            for k, v in accuracies.items()
        ),
        "",
        "The test images were looked at once, after the last stage.",
        "",
        f"- Data: {len(sets.train):,} images for training, {len(sets.val):,} held back for "
        f"validation, {len(sets.test):,} for the test; SHA-256 {sets.digest[:16]}",
        f"- Commit {commit()}, PyTorch {torch.__version__}, seed {recipe.seed}",
        f"- Hardware: {hardware(project.device, project.threads)}",
        f"- Time: {sum(seconds.values()) / 60:.1f} minutes ({parts})",
        "",
        "```yaml",
        yaml.dump(settings, Dumper=_Dumper, sort_keys=False, width=96).rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


class _Dumper(yaml.SafeDumper):
    """Tuples as lists."""


_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)
