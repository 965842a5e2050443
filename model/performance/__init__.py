"""Cycles, memory accesses and the paper's dataflow."""
