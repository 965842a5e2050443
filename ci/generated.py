"""Files that a generator makes from one source: rendered from ci/templates, checked, written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import jinja2

from host.simulation.rtl_index import ROOT


def render(templates: Mapping[str, str], **data: Any) -> dict[str, str]:
    """Contents by path below the project root; `templates` has the names by path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROOT / "ci" / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["hex"] = lambda value, digits: f"{value:0{digits}x}"
    return {path: environment.get_template(name).render(data) for path, name in templates.items()}


def stale(files: Mapping[str, str], root: Path = ROOT) -> list[str]:
    """Paths of the files that are missing below `root` or differ."""
    old = {p: (root / p).read_text(encoding="utf-8") for p in files if (root / p).is_file()}
    return [path for path, text in files.items() if old.get(path) != text]


def update(files: Mapping[str, str], check: bool, command: str) -> NoReturn:
    """Write the files that are stale and end the process; to `check`, write none and fail."""
    old = stale(files)
    for path in old:
        if check:
            print(f"stale: {path} (run .venv/bin/python -m ci {command})", file=sys.stderr)
        else:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(files[path], encoding="utf-8")
            print(f"wrote {path}")
    sys.exit(check and bool(old))
