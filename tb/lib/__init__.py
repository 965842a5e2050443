"""Pieces that several test benches share."""
