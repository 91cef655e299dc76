"""The command `watermark-proxy`.

Data goes to standard output; everything else to standard error, prefixed, lowercase, without a
full stop.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from proxy.cli.accounts import accounts
from proxy.cli.demo import run_demo
from proxy.cli.probe import run_probe
from proxy.cli.reload import run_reload
from proxy.cli.serve import run_serve
from proxy.cli.upstream import UpstreamOptions, run_upstream
from watermark.errors import WatermarkError
from watermark.version import __version__

EXIT_ERROR: Final = 1
EXIT_INTERRUPTED: Final = 130

_cache = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("watermark-state/cache"),
    show_default=True,
    help="Where the built-in model is kept.",
)


@click.group()
@click.version_option(__version__, prog_name="watermark-proxy")
def cli() -> None:
    r"""Mark the text that a model API delivers.

    \b
    Examples:
      watermark-proxy demo
      watermark-proxy serve --config configs/quickstart.toml
      watermark-proxy reload --config configs/quickstart.toml
      watermark-proxy probe --config configs/proxy.toml
      watermark-proxy upstream --port 9090
    """


@cli.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True)
def serve(path: Path) -> None:
    """Run the proxy (and its embedded upstream, where the config has one)."""
    run_serve(path)


@cli.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds to wait for the workers.",
)
def reload(path: Path, timeout: float) -> None:
    """Have a running proxy read its keys, and models that changed, again; probes those that say so.

    Fails where a worker refuses them.
    """
    run_reload(path, timeout_s=timeout)


@cli.command()
@click.option("--config", "path", type=click.Path(path_type=Path), required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def probe(path: Path, *, as_json: bool) -> None:
    """Find out by calls what the upstream does, and what each path would cost.

    For a prompt of 1,000 tokens and a reply of 500: tokens read and generated, over those of an
    unmarked reply; requests one after another; seconds; money, where the config gives prices.
    """
    run_probe(path, as_json=as_json)


@cli.command()
@click.option("--model", default="builtin", show_default=True, help="builtin, or a model folder.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=9090, show_default=True)
@click.option("--trust-remote-code", is_flag=True, help="Run the model folder's own code.")
@click.option(
    "--logprobs-mode",
    type=click.Choice(["tempered", "raw"]),
    default="tempered",
    show_default=True,
    help="Which log-probabilities are reported.",
)
@click.option("--until-stdin-closes", is_flag=True, help="Stop when standard input ends.")
@_cache
def upstream(**options: Any) -> None:  # noqa: ANN401 - click has checked them
    """Serve a language model with OpenAI's API."""
    run_upstream(UpstreamOptions(**options))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--tokens", type=click.IntRange(10), default=120, show_default=True)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("watermark-state"),
    show_default=True,
    help="Folder for the demo's key and the built-in model.",
)
def demo(*, as_json: bool, tokens: int, state: Path) -> None:
    """Watch a real language model answer through the proxy, and detect the mark."""
    run_demo(state, tokens=tokens, as_json=as_json)


cli.add_command(accounts)


def main() -> None:
    """Run the command line; errors of ours become one line and exit status 1."""
    try:
        cli.main(prog_name="watermark-proxy", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as err:
        err.show()
        sys.exit(err.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(EXIT_INTERRUPTED)
    except (WatermarkError, OSError) as err:
        click.echo(f"watermark-proxy: {err}", err=True)
        sys.exit(EXIT_ERROR)
