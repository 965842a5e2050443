"""A table of trials: measured row by row, printed, and written as JSON and Markdown after
each row."""

from dataclasses import dataclass
from pathlib import Path

import click

from model.common.files import check_output, write_text
from train.run_files import write_json
from train.trial import Bench, Trial

FOLDER = Path("build/tables")


@dataclass(frozen=True)
class Row:
    """trial: None for the full-precision network. paper: the 2022 paper's accuracy in %, None where
    it has none."""

    name: str
    trial: Trial | None
    paper: float | None = None


def measure(bench: Bench, rows: list[Row], name: str, title: str, folder: Path = FOLDER) -> str:
    """Run the rows and write `folder`/`name`.json and .md; returns the Markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    done, text = [], ""
    for kind in ("json", "md"):
        check_output(folder / f"{name}.{kind}")
    full = bench.full_precision()
    for row in rows:
        click.echo(f"{name}: {row.name}")
        result = bench.run(row.trial) if row.trial else full
        done.append(
            {
                "row": row.name,
                "paper": row.paper,
                "loss_against_full_precision": full["test"] - result["test"],
                **result,
            }
        )
        text = f"# {title}\n\n{_conditions(bench)}\n\n{_markdown(done)}"
        table = {"title": title, "conditions": _conditions(bench), "rows": done}
        write_json(folder / f"{name}.json", table)
        write_text(folder / f"{name}.md", text)
    return text


def _conditions(bench):
    train, val, test = (len(bench.pictures[split][1]) for split in ("train", "val", "test"))
    return (
        f"{bench.dataset}, seed {bench.seed}, {train:,} training, {val:,} validation and {test:,} "
        "test pictures, "
        f"fine-tuned from {bench.source}. "
        "Accuracies are top-1 of the integer arithmetic (8-bit activations) at the last epoch; "
        "full precision in floating point."
    )


def _markdown(done):
    lines = [
        "| row | test % | validation % | below full precision, points | the paper, test % |",
        "|---|---:|---:|---:|---:|",
    ]
    for row in done:
        paper = "" if row["paper"] is None else f"{row['paper']:.2f}"
        lines.append(
            f"| {row['row']} | {100 * row['test']:.2f} | {100 * row['validation']:.2f} "
            f"| {100 * row['loss_against_full_precision']:.2f} | {paper} |"
        )
    return "\n".join(lines) + "\n"
