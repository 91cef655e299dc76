"""`watermark audit` with all its commands."""

from __future__ import annotations

from watermark.cli.audit import audit
from watermark.cli.audit_report import replay, report
from watermark.cli.audit_run import run

__all__ = ["audit"]

for command in (run, report, replay):
    audit.add_command(command)
