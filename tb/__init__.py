"""Test benches and the tools that build, run and report them."""
