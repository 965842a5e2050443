"""Mutation testing: bugs planted in the RTL, and the tests that must find them
(docs/mutation.md)."""
