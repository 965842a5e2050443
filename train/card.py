"""The model card (train/card.md.jinja): how a network was made and what it is worth."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml

from train.workers import processes


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
    """What it was trained on: of each process, and how many those were."""
    if device.type == "cuda":
        return f"{processes()} x {torch.cuda.get_device_name(device)}"
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    return f"{processes()} x {threads} threads of {name}"


def markdown(project: Any, accuracies: dict[str, dict[str, float]]) -> str:
    """The card as a page. accuracies: {network: {split: 0..1}}."""
    text = Path(__file__).with_name("card.md.jinja").read_text()
    page = jinja2.Template(text, trim_blocks=True, keep_trailing_newline=True)
    return page.render(
        recipe=project.recipe,
        sets=project.sets,
        accuracies=accuracies,
        seconds={name: project.seconds(name) for name in project.stages},
        commit=commit(),
        torch=torch.__version__,
        hardware=hardware(project.device, project.threads),
        settings=yaml.safe_dump(project.recipe.settings, sort_keys=False, width=96).rstrip(),
    )
