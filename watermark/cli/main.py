"""The command `watermark`, and the one place where errors become exit codes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from watermark.cli import render
from watermark.cli.audit import audit
from watermark.cli.audit_report import replay, report
from watermark.cli.audit_run import run
from watermark.cli.detect import detect
from watermark.cli.keys import keys
from watermark.cli.keys_commit import commit, prove, verify
from watermark.cli.keys_end import destroy, disclose, suspend
from watermark.cli.keys_import import import_key
from watermark.cli.keys_rotate import rollback, rotate
from watermark.cli.keys_view import check, list_keys, plan, status
from watermark.cli.ledger import ledger
from watermark.cli.scan import scan
from watermark.cli.seeding import seeding
from watermark.cli.trace import trace
from watermark.errors import WatermarkError
from watermark.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

_EPILOG = """\
Examples:

\b
  watermark keys new --id 2026-11 --dir keys
  watermark detect reply.txt --keys KEYS.toml
  watermark audit plan -o audit --keys KEYS.toml --suspect NAME --requests 200
  watermark scan data/ --keys KEYS.toml --out hits.parquet
  watermark seeding check vectors.json
"""


class EdgeGroup(click.Group):
    """A group of commands that return their exit code, and whose errors end here."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # noqa: ANN401 - as click has it
    ) -> NoReturn:
        """Run a command and exit with its code; errors are printed, never raised."""
        del standalone_mode  # click would print errors in its own form
        try:
            code = super().main(
                args,
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except click.Abort:
            code = render.EXIT_INTERRUPTED
        except click.UsageError as err:
            code = _report_usage(err)
        except WatermarkError as err:
            code = render.write_errors([err])
        except OSError as err:  # of standard output; a broken pipe never comes this far
            render.write_note(f"cannot write the result: {(err.strerror or str(err)).lower()}")
            code = render.EXIT_ERROR
        sys.exit(code)


def _report_usage(err: click.UsageError) -> int:
    """Say what is wrong with the command itself."""
    if isinstance(err, click.exceptions.NoArgsIsHelpError):
        click.echo(err.format_message(), err=True)
        return render.EXIT_USAGE
    message = err.format_message().rstrip(".")
    render.write_note(message[:1].lower() + message[1:])
    if err.ctx is not None:
        render.write_hints([f"`{err.ctx.command_path} --help` shows the options and examples"])
    return render.EXIT_USAGE


@click.group(cls=EdgeGroup, epilog=_EPILOG)
@click.version_option(__version__, "--version", message="watermark %(version)s")
def cli() -> None:
    """Make watermarking keys, and hold them against texts.

    Exit status: 0 the command did its work, 1 an error, 2 a mistake in the command.
    """


for command in (list_keys, status, check, rotate, rollback, suspend, disclose, destroy):
    keys.add_command(command)
for command in (commit, prove, verify, plan, import_key):
    keys.add_command(command)
for command in (run, report, replay):
    audit.add_command(command)
cli.add_command(audit)
cli.add_command(keys)
cli.add_command(detect)
cli.add_command(ledger)
cli.add_command(scan)
cli.add_command(seeding)
cli.add_command(trace)
