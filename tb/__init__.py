"""Test benches of the RTL, and the pieces that they share."""
