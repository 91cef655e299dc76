"""The ledger of a serving process: pseudonyms, contents and the writer, behind two verbs.

Rule 1: no marked byte leaves before `Entry.durable` is done. Rule 2: every entry is ended, with
what was handed over; a process that dies leaves it open, and an open reply counts for nothing.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from watermark.keys import (
    LABEL_LEDGER_ACCOUNT,
    LABEL_LEDGER_CONVERSATION,
    SUBKEY_BYTES,
)
from watermark.ledger.contents import Answer, contents_of
from watermark.ledger.engine_contexts import engine_context_key, fingerprinter
from watermark.ledger.rows import PSEUDONYM_BYTES, REPLY_BYTES, Beginning, Keeps
from watermark.ledger.vault import VAULT_FILE, Vault
from watermark.ledger.writer import LedgerWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from watermark.keys import KeyRecord, SecretKey
    from watermark.ledger.contents import Delivered
    from watermark.ledger.engine_contexts import Fingerprinter
    from watermark.ledger.jobs import Receipt
    from watermark.ledger.limits import State, WriterStats
    from watermark.ledger.rows import Ending
    from watermark.ledger.settings import LedgerSettings

_HASH: Final = "sha256"


class Pseudonyms:
    """Names for accounts and conversations that say nothing without the ledger's secret.

    Args:
        secret: The ledger's secret.
    """

    def __init__(self, secret: SecretKey) -> None:
        self._account = secret.subkey(LABEL_LEDGER_ACCOUNT, SUBKEY_BYTES[LABEL_LEDGER_ACCOUNT])
        self._conversation = secret.subkey(
            LABEL_LEDGER_CONVERSATION, SUBKEY_BYTES[LABEL_LEDGER_CONVERSATION]
        )

    def of_account(self, account: str) -> bytes:
        """Return an account's pseudonym, 16 bytes."""
        return hmac.digest(self._account, account.encode(), _HASH)[:PSEUDONYM_BYTES]

    def of_conversation(self, opening: bytes) -> bytes:
        """Return the pseudonym of the conversation that begins so, 16 bytes."""
        return hmac.digest(self._conversation, opening, _HASH)[:PSEUDONYM_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A reply in the ledger.

    Attributes:
        beginning: How it began.
        durable: Done once that is on the disk.
    """

    beginning: Beginning
    durable: Future[None] = field(repr=False)


class Ledger:
    """What one process delivers.

    Args:
        settings: What `LEDGER.toml` says.
        machine: The machine's name, for a ledger that does not name its node.
        now: Seconds since 1970.
        clock: Monotonic seconds.
        entropy: Returns so many random bytes.
        vfs: SQLite's name of the file system; None for the machine's.

    Raises:
        LedgerConfigError: The ledger cannot be used as described.
        LedgerFileError: Its files cannot be made.
        KeyFileError: Its secret cannot be read.
    """

    def __init__(
        self,
        settings: LedgerSettings,
        *,
        machine: str,
        now: Callable[[], float],
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        vfs: str | None = None,
    ) -> None:
        secret = settings.secret()
        self._keeps = settings.keeps
        self._pseudonyms = Pseudonyms(secret)
        self._context_key = engine_context_key(secret)
        self._entropy = entropy
        self._open = 0
        self._vault: Vault | None = None
        if settings.keeps is Keeps.TOKENS:
            self._vault = Vault(settings.path.parent / VAULT_FILE, secret, entropy)
        self._writer = LedgerWriter(
            settings.rows,
            settings.node_or(machine),
            now=now,
            clock=clock,
            limits=settings.limits,
            contents=self._contents,
            vfs=vfs,
        )

    @property
    def state(self) -> State:
        """Whether replies may begin, and those under way go on."""
        return self._writer.state

    @property
    def stats(self) -> WriterStats:
        """What was written so far."""
        return self._writer.stats

    @property
    def n_open(self) -> int:
        """Replies that have begun and not ended."""
        return self._open

    def fingerprinter(self, record: KeyRecord) -> Fingerprinter:
        """Return what makes the fingerprints of replies that a key marks."""
        return fingerprinter(record, self._context_key)

    def begin(
        self,
        *,
        account: str | None,
        opening: bytes,
        keyed: Fingerprinter,
        tokenizer: str,
        model: str,
        path: str,
    ) -> Entry:
        """Write that a reply begins.

        Args:
            account: Who is served; None for nobody known.
            opening: What the conversation begins with; equal for all its turns.
            keyed: The key that marks; an engine's as `fingerprinter` has it.
            tokenizer: The unit of the model's own tokens.
            model: As the client asked for it.
            path: How the mark gets in.

        Raises:
            LedgerUnavailableError: Nothing can be written now, so nothing may be marked.
        """
        names = self._pseudonyms
        beginning = Beginning(
            reply=self._entropy(REPLY_BYTES),
            account=None if account is None else names.of_account(account),
            conversation=names.of_conversation(opening),
            key_id=keyed.record.key_id,
            unit=keyed.record.unit,
            tokenizer=tokenizer,
            model=model,
            path=path,
        )
        entry = Entry(beginning=beginning, durable=self._writer.begin(beginning))
        self._open += 1
        return entry

    def end(
        self, entry: Entry, ending: Ending, choices: Sequence[Delivered], keyed: Fingerprinter
    ) -> Receipt:
        """Write what was handed over of a reply; once for each entry.

        Args:
            entry: The reply.
            ending: How it ended.
            choices: What was handed over of each choice.
            keyed: The key that marked it.

        Returns:
            Done once that is on the disk; nobody has to wait for it.
        """
        self._open -= 1
        answer = Answer(begun=entry.beginning, choices=choices, keyed=keyed)
        return self._writer.end(entry.beginning, ending, self._keeps, answer)

    def drop(self, entry: Entry) -> None:  # noqa: ARG002 - the counterpart of `end`
        """Forget a reply whose beginning could not be written; it is in the gap."""
        self._open -= 1

    def _contents(self, answers: Sequence[Answer]) -> Sequence[bytes | None]:
        return contents_of(self._keeps, answers, self._vault)

    def close(self) -> None:
        """Write what waits, and let the files go."""
        self._writer.close()
        if self._vault is not None:
            self._vault.close()
