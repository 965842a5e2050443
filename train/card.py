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
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    return f"{threads} threads of {name}"


def markdown(project: Any, accuracies: dict[str, dict[str, float]]) -> str:
    """The card as a page. accuracies: {network: {split: 0..1}}."""
    sets, recipe = project.sets, project.recipe
    seconds = {name: project.seconds(name) for name in project.stages}
    parts = ", ".join(f"{name} {taken:.0f} s" for name, taken in seconds.items())
    rows = (f"| {k} | {v['val']:.2%} | {v['test']:.2%} |" for k, v in accuracies.items())
    table = "\n".join(rows)
    return f"""# {recipe.name}

| | validation | test |
|---|---:|---:|
{table}

The test images were looked at once, after the last stage.

- Data: {len(sets.train):,} images for training, {len(sets.val):,} held back for validation,
  {len(sets.test):,} for the test; SHA-256 {sets.digest[:16]}
- Commit {commit()}, PyTorch {torch.__version__}, seed {recipe.seed}
- Hardware: {hardware(project.device, project.threads)}
- Time: {sum(seconds.values()) / 60:.1f} minutes ({parts})

```yaml
{yaml.safe_dump(recipe.settings, sort_keys=False, width=96).rstrip()}
```
"""
