"""Networks from other formats and to them, and whether they run on the accelerator."""

from __future__ import annotations

from model.common.command import CommandGroup

main = CommandGroup(
    "model",
    help=__doc__,
    modules={
        "import": "model.interchange.importing",
        "check": "model.interchange.checking",
        "export": "model.interchange.exporting",
    },
)

if __name__ == "__main__":
    main()
