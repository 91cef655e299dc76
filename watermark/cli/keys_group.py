"""`watermark keys` with all its commands."""

from __future__ import annotations

from watermark.cli.keys import keys
from watermark.cli.keys_commit import commit, prove, verify
from watermark.cli.keys_end import destroy, disclose, suspend
from watermark.cli.keys_import import import_key
from watermark.cli.keys_rotate import rollback, rotate
from watermark.cli.keys_view import check, list_keys, plan, status

__all__ = ["keys"]

for command in (list_keys, status, check, rotate, rollback, suspend, disclose, destroy):
    keys.add_command(command)
for command in (commit, prove, verify, plan, import_key):
    keys.add_command(command)
