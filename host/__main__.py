"""The commands that users run; `make` calls them with its variables."""

from __future__ import annotations

from model.common.command import CommandGroup

main = CommandGroup(
    "host",
    help=__doc__,
    modules={
        "run": "host.run",
        "demo": "host.demo",
        "perf": "host.perf",
        "accuracy": "host.accuracy",
        "diff": "host.diff",
        "memory": "host.memory",
        "farm": "host.farm",
    },
)

if __name__ == "__main__":
    main()
