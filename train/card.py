"""The model card: how a network was made and what it is worth."""

import platform
import subprocess
from pathlib import Path

import torch
import yaml

from train import files

ROOT = Path(__file__).resolve().parent.parent


def commit() -> str:
    """The commit of the code, with "+" where files were changed since; "unknown" without git."""
    say = lambda *words: subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        changed = say("status", "--porcelain", "--untracked-files=no")
        return say("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def hardware(project) -> str:
    """What it was trained on."""
    if project.device.type == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    text = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (text.read_text().split("\n") if text.exists() else ())
        if line.startswith("model name")
    ]
    return f"{project.threads} threads of {names[0] if names else platform.processor()}"


def facts(project, accuracies: dict) -> dict:
    """What the card says, as plain values. accuracies: {network: {split: 0..1}}."""
    results = {
        name: files.read_fields(project.result(name)).number("seconds", 0)
        for name in project.stages
    }
    sets = project.sets
    return {
        "name": project.recipe.name,
        "recipe": project.recipe.settings,
        "commit": commit(),
        "data": {
            "training images": len(sets.train),
            "validation images": len(sets.val),
            "test images": len(sets.test),
            "digest": sets.digest,
        },
        "hardware": hardware(project),
        "pytorch": torch.__version__,
        "seconds": {name: round(seconds, 1) for name, seconds in results.items()},
        "accuracies": accuracies,
    }


def markdown(found: dict) -> str:
    """The card as a page."""
    data, total = found["data"], sum(found["seconds"].values())
    lines = [
        f"# {found['name']}",
        "",
        "| | validation | test |",
        "|---|---:|---:|",
        *(
            f"| {kind} | {100 * part['val']:.2f} % | {100 * part['test']:.2f} % |"
            for kind, part in found["accuracies"].items()
        ),
        "",
        "The test images were looked at once, after the last stage.",
        "",
        f"- Data: {data['training images']:,} images for training, "
        f"{data['validation images']:,} held back for validation, {data['test images']:,} for the "
        f"test; SHA-256 {data['digest'][:16]}",
        f"- Commit {found['commit']}, PyTorch {found['pytorch']}, seed {found['recipe']['seed']}",
        f"- Hardware: {found['hardware']}",
        f"- Time: {total / 60:.1f} minutes ("
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found["seconds"].items())
        + ")",
        "",
        "```yaml",
        yaml.safe_dump(_plain(found["recipe"]), sort_keys=False, width=96).rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
