"""`watermark audit run`: ask a suspect what the plan says, keep what comes, stop when it may."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from watermark.cli import render
from watermark.cli.options import keys_option, tokenizer_option
from watermark.errors import AuditPlanError
from watermark.stats import LN_10
from watermark.suspects.api import ApiSuspect
from watermark.suspects.callables import COLLECTED, CollectedSuspect
from watermark.suspects.client import ApiSettings
from watermark.suspects.dialects import Dialect, Sampling
from watermark.suspects.folder import CLEAN_MODEL
from watermark.suspects.gguf import load_gguf
from watermark.suspects.http_reading import HttpReader
from watermark.suspects.huggingface import FolderSuspect
from watermark.suspects.opening import begin, log_of, open_audit
from watermark.suspects.weights import weights_digest

if TYPE_CHECKING:
    from watermark.radioactivity import AuditPlan
    from watermark.suspects.answers import Suspect
    from watermark.suspects.auditing import Audit
    from watermark.suspects.gguf import GgufSuspect
    from watermark.suspects.kept import Look
    from watermark.suspects.reading import Reader

_EPILOG = """\
Examples:

\b
  watermark audit run audit --keys KEYS.toml --url http://127.0.0.1:9090
  watermark audit run audit --keys KEYS.toml --url https://api.example.com \\
    --dialect messages --api-key-env API_KEY
  watermark audit run audit --keys KEYS.toml --folder models/suspect
  watermark audit run audit --keys KEYS.toml --folder models/clean --as-control
"""


@click.command(epilog=_EPILOG, short_help="Ask a suspect what a plan says.")
@click.argument("path", metavar="PLAN", type=click.Path(path_type=Path))
@keys_option
@tokenizer_option
@click.option("--url", help="The suspect's server, ending before /v1.")
@click.option(
    "--dialect",
    type=click.Choice([one.value for one in Dialect]),
    default=Dialect.CHAT.value,
    show_default=True,
    help="Which endpoint is asked.",
)
@click.option("--api-key-env", help="The environment variable that holds the API key.")
@click.option("--concurrency", type=click.IntRange(1), default=4, show_default=True)
@click.option("--timeout", "timeout_s", type=float, default=120.0, show_default=True)
@click.option(
    "--folder", "weights", type=click.Path(path_type=Path), help="A Hugging Face model folder."
)
@click.option("--trust-remote-code", is_flag=True, help="Run code that the folder brings along.")
@click.option("--gguf", type=click.Path(path_type=Path), help="A GGUF file.")
@click.option(
    "--answers",
    "collected",
    type=click.Path(path_type=Path),
    help="Answers collected already: JSONL of id, answer, plan (its digest).",
)
@click.option("--as-control", is_flag=True, help="This is the clean model.")
@click.option("--exploratory", is_flag=True, help="Run a plan that is not logged.")
def run(
    *,
    path: Path,
    keys_file: Path,
    tokenizers: tuple[Path, ...],
    url: str | None,
    dialect: str,
    api_key_env: str | None,
    concurrency: int,
    timeout_s: float,
    weights: Path | None,
    trust_remote_code: bool,
    gguf: Path | None,
    collected: Path | None,
    as_control: bool,
    exploratory: bool,
) -> int:
    """Execute PLAN (the folder, or its plan.json), or go on where it stopped.

    What was answered is kept at once and never asked for again. It stops when the e-value has
    reached 1 / alpha, when every prompt has its answer, or when the money is spent.
    """
    if sum(one is not None for one in (url, weights, gguf, collected)) != 1:
        raise click.UsageError("give one of --url, --folder, --gguf and --answers")
    audit = open_audit(path, keys_file, tokenizers)
    plan, sampling = audit.plan, _sampling(audit.plan)
    if plan.access.is_open and as_control:
        raise click.UsageError("--as-control goes with a closed audit")
    suspect: Suspect | Reader
    if url is not None:
        api_key = _api_key(api_key_env)
        settings = ApiSettings(
            url=url,
            model=plan.model,
            dialect=Dialect(dialect),
            sampling=sampling,
            api_key=api_key,
            concurrency=concurrency,
            requests_per_minute=plan.budget.requests_per_minute,
            timeout_s=timeout_s,
        )
        if not plan.model:
            raise AuditPlanError("the plan names no model to ask for; plan with --model")
        is_open = plan.access.is_open
        suspect = HttpReader(settings) if is_open else ApiSuspect(settings)
        asked = f"{_address(url)} {dialect}"
    elif weights is not None:
        suspect = FolderSuspect(weights, sampling, trust_remote_code=trust_remote_code)
        asked = f"folder {weights.name} {weights_digest(weights)}"
    elif gguf is not None:
        suspect = load_gguf(gguf, sampling, longest=audit.longest(), is_read=plan.access.is_open)
        asked = f"gguf {gguf.name} {weights_digest(gguf)}"
    else:
        suspect, asked = _collected(audit, collected), COLLECTED
    device = getattr(suspect, "device", "")
    if device:
        render.write_note(f"the weights run on: {device}")
    begin(
        audit.folder,
        log_of(keys_file),
        asked,
        is_control=as_control,
        is_exploratory=exploratory,
    )
    return _execute(audit, suspect, as_control=as_control)


def _address(url: str) -> str:
    """Return where a server is, without a password or a query that may hold one."""
    parts = urlsplit(url)
    return f"{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _api_key(name: str | None) -> str:
    """Return what an environment variable holds; keys never stand on a command line."""
    if name is None:
        return ""
    found = os.environ.get(name, "")  # noqa: TID251 - the command line reads the environment
    if not found:
        raise click.UsageError(f"--api-key-env {name} is not set; export it first")
    return found


def _execute(audit: Audit, suspect: Suspect | Reader | GgufSuspect, *, as_control: bool) -> int:
    try:
        if audit.plan.access.is_open:
            look = audit.read(suspect, tell=_tell)  # type: ignore[arg-type]  # by what it is made of
        else:
            look = audit.run(suspect, is_control=as_control, tell=_tell)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        render.write_note("interrupted; what came so far is kept, and the same command goes on")
        raise
    if look.is_rejected and not as_control:
        render.write_note("the e-value has reached 1 / alpha: the null hypothesis is rejected")
    if audit.plan.budget.price and look.n_answers < look.n_planned and not look.is_rejected:
        is_shared = as_control or CLEAN_MODEL in audit.plan.controls
        together = " by suspect and clean model together, or kept for the latter" * is_shared
        render.write_note(
            f"{look.spent:.2f} of {audit.plan.budget.price:.2f} is spent{together}; a further "
            "request might pass the limit, and those without an answer wait for it"
        )
    n_uncontrolled = audit.n_uncontrolled()
    if n_uncontrolled:
        render.write_note(
            f"warning: the plan promises a clean model as a control, and {n_uncontrolled} prompts "
            f"wait for its answers; ask it with `watermark audit run {audit.folder.path} "
            "--as-control`; until then the report warns of it"
        )
    if look.n_answers and not look.n_scored:
        render.write_note(
            "warning: nothing was tested, because nothing was said at a context that counts; the "
            "suspect speaks another language or repeats its prompts, or the ledger is another "
            "deployment's or of another secret; then plan again with the right one"
        )
    render.write_hints([f"`watermark audit report {audit.folder.path}` writes the report"])
    return render.EXIT_DONE


def _sampling(plan: AuditPlan) -> Sampling:
    return Sampling(
        temperature=plan.temperature,
        max_tokens=plan.budget.max_tokens,
        max_tokens_as=plan.max_tokens_as,
        system=plan.system,
    )


def _collected(audit: Audit, path: Path | None) -> CollectedSuspect:
    if path is None or audit.plan.access.is_open:
        raise click.UsageError("--answers goes with a closed audit")
    return CollectedSuspect(path, audit.folder)


def _tell(look: Look) -> None:
    render.write_note(
        f"{look.n_answers} of {look.n_planned} answers, {look.n_scored} scores, log10 of the "
        f"e-value at most {look.log_evalue_peak / LN_10:.2f}, spent {look.spent:.2f}"
        f"{'; nothing was said at a context that counts, so stop and look' * look.is_unheard}"
    )
