"""Test benches of single modules; the folders are those of rtl/."""
