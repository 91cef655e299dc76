"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

# The same examples on every run, and no clock: a slow machine is no failure.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

# What runs in the background of a script ignores Ctrl-C, and so would the processes under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
