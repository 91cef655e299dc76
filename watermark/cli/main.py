"""The command `watermark`, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from watermark.cli import render
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


# Each is imported when it is asked for.
_COMMANDS: Final = {
    "audit": "watermark.cli.audit_group",
    "detect": "watermark.cli.detect",
    "keys": "watermark.cli.keys_group",
    "ledger": "watermark.cli.ledger",
    "scan": "watermark.cli.scan",
    "seeding": "watermark.cli.seeding",
    "trace": "watermark.cli.trace",
}


class EdgeGroup(click.Group):
    """A group of commands that return their exit code, and whose errors end here."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click has it
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as click has it
        """Return a command, None where there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(_COMMANDS[cmd_name]), cmd_name)
        return command

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
