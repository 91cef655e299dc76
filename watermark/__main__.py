"""`python -m watermark`, and the `watermark` command."""

from __future__ import annotations

from watermark.cli.main import cli
from watermark.keys.hardening import forbid_dumps


def main() -> None:
    """Run the command line on the arguments of the process, and exit."""
    forbid_dumps()
    cli.main(prog_name="watermark")


if __name__ == "__main__":
    main()
