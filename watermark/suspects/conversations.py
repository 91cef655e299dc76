"""Delivered conversations in a JSONL file: one object a line.

    {"id": "c-17", "account": "acme", "key_id": "2026-11", "path": "splice",
     "messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}],
     "chunk_ends": [24, 51]}

`messages` is all that must be there. `key_id` is the key that marked, `path` how (every reply of
the conversation), and `chunk_ends` after how many characters of the last reply each chunk of
`select` ended.

Rule 1: prompts of users go to a stranger, so only those of accounts that agreed
(`audit_prompts`), and of probe accounts, leave this file; who is not named agreed to nothing.
Rule 2: which rows are drawn follows from a seed that was fixed, never from what was delivered.
"""

from __future__ import annotations

import hashlib
import tomllib
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from watermark.errors import AuditPlanError
from watermark.radioactivity import Path as MarkPath
from watermark.radioactivity import PromptSource, Traffic
from watermark.radioactivity.plan import PlanFile
from watermark.suspects.answers import Prompt
from watermark.suspects.reading import ReadText, cut

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from watermark.text import Unit

_ASSISTANT: Final = "assistant"
_USER: Final = "user"
SEEDS: Final = frozenset({"a6bdf5f77e623c50e9e2676a8e7835260c830a4a35b10c9d601c7a335af56ca3"})
"""Digests of this project's files of prompts, `seeds/probe-prompts.jsonl`."""


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: str
    content: str


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """One delivered conversation; see the module."""

    messages: tuple[Message, ...]
    id: str = ""
    account: str = ""
    key_id: str = ""
    path: str = ""
    chunk_ends: tuple[int, ...] = ()


def read_conversations(path: Path) -> list[Conversation]:
    """Return the conversations of a file.

    Raises:
        AuditPlanError: It cannot be read, a line is none, or two are of one conversation, which
            would count twice.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as err:
        raise AuditPlanError(f"cannot read {path}; correct the path") from err
    found: list[Conversation] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            found.append(msgspec.json.decode(line, type=Conversation))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise AuditPlanError(
                f"{path}:{number} is no conversation; write an object with `messages`"
            ) from None
        name = found[-1].id
        if name and lines_of.setdefault(name, number) != number:
            raise AuditPlanError(
                f"{path}:{number} has the id {name!a} of line {lines_of[name]}, and a conversation "
                "counts once; give each in one line, as it stood at its end"
            )
    return found


def traffic_of(
    conversations: Iterable[Conversation],
    unit: Unit,
    context_width: int,
    known: Collection[str],
) -> list[Traffic]:
    """Return the contexts that were delivered, by the key that marked.

    Args:
        conversations: What was delivered.
        unit: How text is cut.
        context_width: Units in a context.
        known: Ids of all keys at hand. Traffic under a misspelt one would pass for another key's,
            and a tested key would choose its own weights.

    Raises:
        AuditPlanError: A conversation names a key that is not at hand.
    """
    by_key: dict[str, list[Conversation]] = {}
    for one in conversations:
        if one.key_id and one.key_id not in known:
            raise AuditPlanError(
                f"a conversation was delivered under key {one.key_id!a}, which is not at hand; "
                "correct its key_id, give the KEYS.toml of the deployment that delivered, or "
                "leave out key_id where nobody knows it"
            )
        by_key.setdefault(one.key_id, []).append(one)
    return [
        Traffic.of_conversations(
            [
                [unit.encode(m.content) for m in one.messages if m.role == _ASSISTANT]
                for one in part
            ],
            context_width,
            key_id=key_id,
        )
        for key_id, part in sorted(by_key.items())
    ]


def agreeing_accounts(path: Path) -> frozenset[str]:
    """Return the accounts of an accounts.toml whose `audit_prompts` is true.

    Raises:
        AuditPlanError: The file cannot be read.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("account", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise AuditPlanError(f"cannot read accounts {path}; give an accounts.toml") from err
    return frozenset(
        str(one.get("name"))
        for one in tables
        if isinstance(one, dict) and one.get("audit_prompts") is True
    )


def first_turns(
    conversations: Sequence[Conversation], accounts: frozenset[str], *, count: int, seed: str
) -> list[Prompt]:
    """Return first-turn user prompts of accounts that agreed, drawn by a seed (rules 1 and 2).

    Raises:
        AuditPlanError: There is none.
    """
    texts = [
        one.messages[0].content
        for one in conversations
        if one.account in accounts and one.messages and one.messages[0].role == _USER
    ]
    distinct = [text for text in dict.fromkeys(texts) if text.strip()]
    if not distinct:
        raise AuditPlanError(
            "no conversation is of an account that agreed to have its prompts sent to a suspect; "
            "set audit_prompts for probe accounts, or leave out --accounts for prompts of seeds/"
        )
    chosen = drawn(len(distinct), count, seed)
    return [Prompt(id=f"turn-{i:06d}", prompt=distinct[i]) for i in chosen]


def passages(conversations: Sequence[Conversation], *, count: int, seed: str) -> list[ReadText]:
    """Return delivered replies to be read, rows drawn by a seed (rule 2).

    Raises:
        AuditPlanError: No reply may be read.
    """
    known = {one.value for one in MarkPath} - {MarkPath.REPLY.value}
    ready = [
        one
        for one in conversations
        if one.path in known
        and one.messages
        and one.messages[-1].role == _ASSISTANT
        and (one.path != MarkPath.SELECT.value or one.chunk_ends)
    ]
    if not ready:
        raise AuditPlanError(
            "no delivered reply may be read: each needs `path`, one of native, splice, unmarked, "
            "or select with chunk_ends; of others what comes after had a say in what comes before"
        )
    return [
        ReadText(
            id=f"reply-{i:06d}",
            text=ready[i].messages[-1].content,
            before=tuple(m.content for m in ready[i].messages[:-1]),
            path=ready[i].path,
            chunk_ends=ready[i].chunk_ends,
        )
        for i in drawn(len(ready), count, seed)
    ]


def prefixes(
    conversations: Sequence[Conversation],
    accounts: frozenset[str],
    unit: Unit,
    *,
    n_units: int,
    count: int,
    seed: str,
) -> list[Prompt]:
    """Return beginnings of first replies of accounts that agreed (rules 1 and 2).

    Of a conversation only the first reply will do: the key chose it after a prompt that knows no
    key, so that its beginning was made with the key at its own contexts alone, and those are in
    view of the suspect (`radioactivity.view`). A later reply answers earlier ones: it may say what
    the key chose there, at contexts that it does not hold itself. Conversations that went on count
    like others, by their first reply. To leave them out would be to choose by what their users
    made of the whole reply, and so by the key at contexts after the cut.

    Args:
        conversations: What was delivered.
        accounts: Those that agreed.
        unit: How text is cut.
        n_units: Units of a beginning; of `select` at most, up to the end of a chunk.
        count: At most so many.
        seed: Draws the rows.

    Raises:
        AuditPlanError: There is none, or one of `select` goes on, and nobody knows the chunks of
            its first reply.
        AuditDesignError: A reply cannot be cut there.
    """
    agreed = [_up_to_first_reply(one) for one in conversations if one.account in accounts]
    reads = passages(agreed, count=len(agreed), seed=seed)
    texts = [(one.id, _beginning(one, unit, n_units)) for one in reads]
    found = [Prompt(id=name, prompt=text) for name, text in texts if text.strip()][:count]
    if not found:
        raise AuditPlanError(
            f"no delivered reply is longer than {n_units} units, or of `select` with a chunk "
            "within them; plan shorter beginnings"
        )
    return found


def _up_to_first_reply(one: Conversation) -> Conversation:
    """Return a conversation as it stood after its first reply.

    Raises:
        AuditPlanError: The ends of that reply's chunks are not at hand.
    """
    first = next((i for i, turn in enumerate(one.messages) if turn.role == _ASSISTANT), None)
    if first is None or first + 1 == len(one.messages):
        return one
    if one.path == MarkPath.SELECT.value:
        raise AuditPlanError(
            f"conversation {one.id!a} goes on after its first reply, and `chunk_ends` are of its "
            "last one; give conversations of `select` as they stood after their first reply"
        )
    return msgspec.structs.replace(one, messages=one.messages[: first + 1])


def _beginning(read: ReadText, unit: Unit, n_units: int) -> str:
    """Return the first units of a reply as text; empty where it is too short."""
    cut_text = cut(read, unit)
    place = n_units
    if cut_text.passage.path is MarkPath.SELECT:
        place = max((end for end in cut_text.passage.chunk_ends if end <= n_units), default=0)
    if not 0 < place < len(cut_text.starts):
        return ""
    cut_text.passage.prefix(place)  # refuses what must not be cut
    return read.text[: cut_text.starts[place]]


def drawn(n: int, count: int, seed: str) -> list[int]:
    """Return which of n rows a seed draws, each once, in the order in which they are used."""
    rng = np.random.Generator(np.random.PCG64DXSM(int.from_bytes(seed.encode(), "little")))
    return [int(one) for one in rng.permutation(n)[:count]]


def seed_prompts(path: Path, *, count: int, seed: str) -> list[Prompt]:
    """Return prompts of a file, rows drawn by a seed.

    Args:
        path: JSONL with `id` and `prompt`, such as `seeds/probe-prompts.jsonl`.
        count: At most so many.
        seed: Draws them.

    Raises:
        AuditPlanError: It cannot be read, or a line is no prompt.
    """
    try:
        rows = [msgspec.json.decode(one, type=Prompt) for one in path.read_bytes().splitlines()]
    except OSError as err:
        raise AuditPlanError(f"cannot read {path}; correct the path") from err
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise AuditPlanError(
            f"{path} holds no prompts; write objects with id and prompt, one a line"
        ) from None
    if not rows:
        raise AuditPlanError(f"{path} holds no prompts; write some")
    return [rows[i] for i in drawn(len(rows), count, seed)]


def origin_of(path: Path) -> tuple[PromptSource, PlanFile]:
    """Return which file of prompts that is, and what speaks for it.

    Raises:
        AuditPlanError: It cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise AuditPlanError(f"cannot read {path}; correct the path") from err
    sha256 = hashlib.sha256(data).hexdigest()
    source = PromptSource.SEEDS if sha256 in SEEDS else PromptSource.GIVEN
    return source, PlanFile(name=path.name, sha256=sha256, rows=len(data.splitlines()))


def repeated(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Return so many prompts, each again and again where there are fewer."""
    return [
        Prompt(id=one.id if lap == 0 else f"{one.id}#{lap + 1}", prompt=one.prompt)
        for lap in range(-(-count // len(prompts)))
        for one in prompts
    ][:count]
