"""Fixtures that all tests of training use."""

from train.tests.helpers import one_thread  # noqa: F401
