"""The folder of an audit: its plan and what the plan names, what was said, and what it came to.

    plan.json         the plan, in its one form
    prompts.jsonl     prompts, or passages to be read
    delivered-N.bin   delivered contexts of one key; as secret as the key where they are keyed
    answers.jsonl     what the suspect said (a journal)
    control.jsonl     what a clean model said to the same prompts (a journal)
    run.json          under which conditions it ran
    result.json, report.html

Rule 1: nothing is taken from a file before its digest in the plan was checked. Rule 2: one session
at a time writes: two would each put their lines after what they have read, and break the journal.

Source: `watermark/spec/audit.md`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import numpy as np

from watermark.errors import AuditPlanError, AuditRunError
from watermark.keys.folder import write_synced
from watermark.radioactivity import Traffic
from watermark.radioactivity.plan import DeliveredFile, PlanFile, parse_plan, plan_digest
from watermark.suspects.answers import Prompt
from watermark.suspects.reading import ReadText

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

PLAN: Final = "plan.json"
PROMPTS: Final = "prompts.jsonl"
ANSWERS: Final = "answers.jsonl"
CONTROL: Final = "control.jsonl"
CLEAN_MODEL: Final = "clean-model"
"""What a plan calls the control that `CONTROL` holds."""
RUN: Final = "run.json"
RESULT: Final = "result.json"
REPORT: Final = "report.html"
_PRIVATE: Final = 0o600
_ROW: Final = np.dtype([("fingerprint", "<u8"), ("conversations", "<i8")])
T = TypeVar("T", Prompt, ReadText)


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Under which conditions an audit ran.

    Attributes:
        plan: Digest of the plan.
        is_logged: Whether the plan stood in the log before the first prompt went out.
        suspect: How the suspect was asked.
        control: How the clean model was asked; empty where there was none.
        proof: That the log holds the plan, as `watermark keys prove` has it; empty without log.
        key_proofs: That it holds each key of the plan, likewise, in their order.
        log_verifier: The log's public key.
    """

    plan: str
    is_logged: bool
    suspect: str = ""
    control: str = ""
    proof: str = ""
    key_proofs: tuple[str, ...] = ()
    log_verifier: str = ""


def encode_facts(facts: RunFacts) -> bytes:
    """Return the one form of `run.json`."""
    return msgspec.json.format(msgspec.json.encode(facts, order="sorted"), indent=1) + b"\n"


class AuditFolder:
    """A folder with a plan.

    Args:
        path: The folder, or the `plan.json` in it.

    Raises:
        AuditPlanError: There is no plan, or one of its files was changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.parent if path.name == PLAN else path
        data = self._read(PLAN)
        self.plan = parse_plan(data, str(self.path / PLAN))
        self.digest = plan_digest(data)

    def __repr__(self) -> str:
        """Show which plan it is."""
        return f"<AuditFolder of plan {self.digest[:12]}>"

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Keep other sessions out until the block ends, or the process does (rule 2).

        Raises:
            AuditRunError: Another session is at work.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as err:
            raise AuditRunError(f"cannot open {self.path}: {err.strerror}; correct it") from err
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise AuditRunError(
                f"another session runs the audit in {self.path}; wait for its end, or stop it, "
                "and run the command again"
            ) from None
        finally:
            os.close(descriptor)

    def prompts(self) -> list[Prompt]:
        """Return the prompts of a closed audit.

        Raises:
            AuditPlanError: The file is not the one of the plan.
        """
        return self._rows(Prompt)

    def passages(self) -> list[ReadText]:
        """Return the passages of an open audit.

        Raises:
            AuditPlanError: The file is not the one of the plan.
        """
        return self._rows(ReadText)

    def traffic(self, context_keys: Mapping[str, bytes]) -> list[Traffic]:
        """Return what was delivered.

        Args:
            context_keys: Context subkeys by key id, for fingerprints that are keyed.

        Raises:
            AuditPlanError: A file is not the one of the plan, or its key is not at hand.
        """
        return [self._traffic(one, context_keys) for one in self.plan.delivered]

    def _traffic(self, one: DeliveredFile, context_keys: Mapping[str, bytes]) -> Traffic:
        rows = np.frombuffer(self._checked(one), _ROW)
        own = bytes.fromhex(one.context_key) or context_keys.get(one.key_id)
        if one.is_keyed and own is None:
            raise AuditPlanError(
                f"{one.name} holds contexts delivered under key {one.key_id!a}, which is not at "
                "hand; give its KEYS.toml, or its disclosed subkey"
            )
        return Traffic(
            key_id=one.key_id,
            fingerprints=rows["fingerprint"].astype(np.uint64),
            conversations=rows["conversations"].astype(np.int64),
            context_key=own if one.is_keyed else None,
        )

    def facts(self) -> RunFacts | None:
        """Return under which conditions it ran; None where it did not.

        Raises:
            AuditRunError: They are of another plan, or malformed.
        """
        path = self.path / RUN
        if not path.exists():
            return None
        try:
            data = path.read_bytes()
            facts = msgspec.json.decode(data, type=RunFacts)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            raise AuditRunError(f"{path} was changed; restore the file") from None
        if encode_facts(facts) != data:
            raise AuditRunError(f"{path} was changed; restore the file")
        if facts.plan != self.digest:
            raise AuditRunError(f"{path} is of plan {facts.plan[:12]!a}, not {self.digest[:12]}")
        return facts

    def write(self, name: str, data: bytes) -> None:
        """Write one of the folder's files.

        Raises:
            AuditRunError: It cannot be written.
        """
        write_file(self.path / name, data)

    def read_result(self) -> bytes:
        """Return the result as it was written.

        Raises:
            AuditRunError: There is none.
        """
        return self._reported(RESULT)

    def read_report(self) -> bytes:
        """Return the page as it was written.

        Raises:
            AuditRunError: There is none.
        """
        return self._reported(REPORT)

    def _reported(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as err:
            raise AuditRunError(
                f"{self.path} holds no {name}; `watermark audit report` writes it"
            ) from err

    def _rows(self, kind: type[T]) -> list[T]:
        data = self._checked(self.plan.prompts)
        try:
            rows = [msgspec.json.decode(line, type=kind) for line in data.splitlines()]
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise AuditPlanError(f"{self.path / PROMPTS} holds no {kind.__name__}s") from None
        if len({one.id for one in rows}) != len(rows):
            raise AuditPlanError(f"{self.path / PROMPTS}: two rows share an id; plan again")
        return rows

    def _checked(self, file: PlanFile) -> bytes:
        """Return a file's bytes (rule 1)."""
        data = self._read(file.name)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise AuditPlanError(
                f"{self.path / file.name} is not the file that the plan names; restore it"
            )
        return data

    def _read(self, name: str) -> bytes:
        if "/" in name or name.startswith("."):
            raise AuditPlanError(f"the plan names {name!a}, which is not in its folder; plan again")
        try:
            return (self.path / name).read_bytes()
        except OSError as err:
            raise AuditPlanError(
                f"cannot read {self.path / name}; give the folder that `watermark audit plan` made"
            ) from err


def write_file(path: Path, data: bytes) -> None:
    """Write a file that its owner alone can read.

    Raises:
        AuditRunError: It cannot be written.
    """
    try:
        write_synced(path, data, _PRIVATE)
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        raise AuditRunError(f"cannot write {path}: {reason}; give another folder") from err


def pack_rows(rows: Sequence[msgspec.Struct]) -> bytes:
    """Return rows as JSONL, in one form."""
    return b"".join(msgspec.json.encode(one, order="deterministic") + b"\n" for one in rows)


def pack_traffic(one: Traffic) -> bytes:
    """Return delivered contexts as they stand in a file."""
    rows = np.zeros(len(one.fingerprints), _ROW)
    rows["fingerprint"] = one.fingerprints
    rows["conversations"] = one.conversations
    return rows.tobytes()
