"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# The same examples on every run, and no clock: a slow machine is no failure.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")
