"""Which test functions a simulation must execute: all that its modules define.

cocotb loads this module before the test modules. It lists what they define, the expansions of
`cocotb.parametrize` included, in defined.json in the folder of the simulation.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import warnings
from pathlib import Path

FILE = "defined.json"


def read(folder: Path, pattern: str | None) -> list[str]:
    """Names `module.function` of the defined tests that match `pattern`.

    There are none if the simulation has not come so far.
    """
    path = folder / FILE
    names = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [name for name in names if re.search(pattern or "", name)]


def _write(modules: list[str]) -> None:
    from cocotb.regression import Test, TestGenerator  # in a simulation only

    names = []
    for module in modules:
        for item in vars(importlib.import_module(module)).values():
            if isinstance(item, TestGenerator):
                names += [test.fullname for test in item.generate_tests()]
            elif isinstance(item, Test):
                names.append(item.fullname)
    Path(FILE).write_text(json.dumps(names, indent=0), encoding="utf-8")


_first, *_modules = os.environ.get("COCOTB_TEST_MODULES", "").split(",")
if _first == __name__:
    warnings.filterwarnings("ignore", f"No tests were discovered in module: {__name__}")
    _write(_modules)
