"""Synthesis: area on 7-series, place and route on an ECP5, figures that must not get worse."""
