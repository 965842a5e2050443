"""The commands of the flow; `make` calls them with its variables."""

from __future__ import annotations

from model.common.command import CommandGroup

main = CommandGroup(
    "ci",
    help=__doc__,
    modules={
        "sim": "ci.sim",
        "regress": "ci.regress",
        "farm-regress": "ci.farm_regress",
        "testplan": "ci.testplan",
        "lint": "ci.lint",
        "coverage": "ci.code_coverage",
        "mutate": "ci.mutate",
        "farm-mutate": "ci.farm_mutate",
        "formal": "ci.formal",
        "report": "ci.report.site",
        "speed": "ci.speed",
        "bitstream": "syn.bitstream",
        "results": "ci.results_page",
        "waves": "ci.waves",
        "generate-program": "ci.generate_program",
        "generate-regs": "ci.generate_regs",
    },
)

if __name__ == "__main__":
    main()
