"""Runs a Yosys script with the native Yosys of pyosys: `python syn/native_yosys.py SCRIPT`."""

import sys

from pyosys import libyosys

libyosys.run_pass(f"script {sys.argv[1]}", libyosys.Design())
