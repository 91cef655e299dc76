"""Reading sealed segments: do they hold, and what was delivered.

The functions on tables take and return tables, so that one machine maps them over its segments
and a cluster hands them to Ray Data.

Rule 1: a segment is read only as its signed header has it. Rule 2: a reply that occurs twice
counts once, and a context once a conversation. Rule 3: only replies that ended count. Rule 4: no
more is in memory than a part of the rows (`spill.py`), however many were sealed.

Source: `watermark/spec/ledger.md`, Reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from watermark.errors import SegmentError
from watermark.ledger.arrow import SCHEMA, batches_of, root_of
from watermark.ledger.contents import Delivered, fingerprints, unpack_tokens
from watermark.ledger.engine_contexts import fingerprinter
from watermark.ledger.rows import Keeps, Kind, Outcome
from watermark.ledger.spill import in_parts
from watermark.ledger.store import segment_name
from watermark.text import WORDS_V1

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from watermark.keys import KeyRing
    from watermark.ledger.engine_contexts import Fingerprinter
    from watermark.ledger.headers import Header, SignedHeader
    from watermark.ledger.rows import Gap
    from watermark.ledger.store import SegmentStore
    from watermark.ledger.vault import Vault
    from watermark.log import NoteVerifier

CONTEXT_COLUMNS: Final = (
    "kind",
    "key_id",
    "unit",
    "conversation",
    "keeps",
    "outcome",
    "contents",
)
TOKEN_COLUMNS: Final = (*CONTEXT_COLUMNS, "account", "reply")
_PART_BYTES: Final = 16 << 20  # of segments: some two million contexts, 200 MiB in memory
_PART_ROWS: Final = 1 << 18
_CONTEXT: Final = ["key_id", "unit", "fingerprint"]
_BEGUN: Final = ["account", "conversation", "key_id", "unit", "tokenizer", "model", "path"]
_ENDED: Final = ["keeps", "outcome", "n_tokens", "n_bytes", "digest", "contents"]
REPLY_COLUMNS: Final = ("node", "kind", "at_us", "reply", *_BEGUN, *_ENDED[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedNode:
    """A node's chain that holds, from its first header to its last.

    Attributes:
        node: The node.
        headers: Its headers, in order.
        is_logged: Whether the root of every segment is in the log of keys; None where no log was
            asked.
    """

    node: str
    headers: tuple[SignedHeader, ...]
    is_logged: bool | None

    @property
    def rows(self) -> int:
        """Rows that were sealed."""
        return sum(one.header.rows for one in self.headers)

    @property
    def begins(self) -> int:
        """Replies that began."""
        return sum(one.header.begins for one in self.headers)

    @property
    def ends(self) -> int:
        """Replies that ended."""
        return sum(one.header.ends for one in self.headers)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What is missing, as far as it is known."""
        return tuple(gap for one in self.headers for gap in one.header.gaps)

    @property
    def kept(self) -> tuple[Header, ...]:
        """The segments that are still there."""
        expired = self.headers[-1].header.expired if self.headers else 0
        return tuple(one.header for one in self.headers if one.header.number > expired)


def verify_node(
    store: SegmentStore,
    node: str,
    verifier: NoteVerifier,
    *,
    logged: Container[bytes] | None = None,
) -> VerifiedNode:
    """Hold a node's headers against each other, and its segments against them.

    Args:
        store: Where they lie.
        node: The node.
        verifier: The public key of the headers.
        logged: The entries of the log of keys; None to leave it out.

    Raises:
        SegmentError: Something is missing, was changed, or is not signed.
    """
    headers = tuple(store.headers(node, verifier))
    verified = VerifiedNode(
        node=node,
        headers=headers,
        is_logged=None if logged is None else all(one.entry() in logged for one in headers),
    )
    for header in verified.kept:
        _verify_segment(store, header)
    return verified


def _verify_segment(store: SegmentStore, header: Header) -> None:
    """Hold a segment against its header: bytes, rows, root, numbers."""
    name = segment_name(header.segment)
    where = f"segment {header.number} of node {header.node}"
    digest = store.digest(header.node, name)
    if digest is None:
        raise SegmentError(f"{where} is missing ({name}); restore it")
    if digest != header.segment:
        raise SegmentError(f"{where} was changed ({name}); restore it")
    with store.open(header.node, name) as file:
        root, kinds = root_of(file)
    counts = (sum(kinds.values()), kinds.get(Kind.BEGIN, 0), kinds.get(Kind.END, 0))
    if root.hex() != header.root or counts != (header.rows, header.begins, header.ends):
        raise SegmentError(f"{where} holds other rows than its header says; restore it")


def tables(
    store: SegmentStore, verified: Sequence[VerifiedNode], columns: Sequence[str] | None = None
) -> Iterator[Any]:
    """Yield the segments of verified nodes as tables of some thousands of rows.

    Raises:
        SegmentError: One cannot be read.
    """
    for node in verified:
        for header in node.kept:
            with store.open(node.node, segment_name(header.segment)) as file:
                yield from batches_of(file, columns)


def of_key(table: Any, key_id: str) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the rows of one key."""
    return table.filter(pc.equal(_words(table["key_id"]), key_id))


def contexts_of(table: Any) -> Any:  # noqa: ANN401 - pyarrow has no types
    """Return the contexts of a table of rows, each once a key and conversation.

    Args:
        table: Rows, with `CONTEXT_COLUMNS` at least.

    Returns:
        A table of key_id, unit, fingerprint (uint64) and conversation, without repeats.
    """
    is_end = pc.equal(table["kind"], int(Kind.END))
    is_kept = pc.equal(_words(table["keeps"]), Keeps.CONTEXTS.value)
    is_given = pc.not_equal(_words(table["outcome"]), Outcome.VOID.value)
    rows = table.filter(pc.and_kleene(pc.and_kleene(is_end, is_kept), is_given))
    contents = rows["contents"].to_pylist()
    lengths = np.array([len(one or b"") // 8 for one in contents], np.int64)
    index = pa.array(np.repeat(np.arange(len(contents)), lengths))
    exploded = pa.table(
        {
            "key_id": _words(rows["key_id"]).take(index),
            "unit": _words(rows["unit"]).take(index),
            "fingerprint": pa.array(np.frombuffer(b"".join(filter(None, contents)), "<u8")),
            "conversation": rows["conversation"].combine_chunks().take(index)
            if len(rows)
            else pa.array([], pa.binary()),
        }
    )
    return distinct(exploded)


def with_fingerprints(
    table: Any,  # noqa: ANN401 - likewise
    vault: Vault,
    ring: KeyRing,
    context_key: bytes,
) -> Any:  # noqa: ANN401 - likewise
    """Return rows with fingerprints in the place of tokens that can be decrypted.

    Erased accounts, keys that are not in the ring and units of words keep what they have: their
    rows count for nothing in `contexts_of`.

    Args:
        table: Rows, with `TOKEN_COLUMNS` at least.
        vault: The data keys of the node's accounts.
        ring: The keys that marked.
        context_key: From `engine_context_key`, for what an engine marked.
    """
    keyed = {(record.key_id, record.unit): fingerprinter(record, context_key) for record in ring}
    keeps, contents = [], []
    for row in table.select(TOKEN_COLUMNS).to_pylist():
        found = _fingerprints(row, vault, keyed) if row["keeps"] == Keeps.TOKENS else None
        keeps.append(row["keeps"] if found is None else Keeps.CONTEXTS.value)
        contents.append(row["contents"] if found is None else found)
    for name, values, kind in (
        ("keeps", keeps, pa.string()),
        ("contents", contents, pa.binary()),
    ):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, pa.array(values, kind))
    return table


def _fingerprints(
    row: dict[str, Any], vault: Vault, keyed: dict[tuple[str, str], Fingerprinter]
) -> bytes | None:
    """Return the fingerprints of one row's tokens, None where they cannot be had."""
    one = keyed.get((row["key_id"], row["unit"]))
    if one is None or row["contents"] is None or row["unit"] == WORDS_V1:
        return None
    plain = vault.open(row["account"], row["reply"], row["contents"])
    if plain is None:
        return None
    choices = [
        Delivered(tokens=tokens.tolist(), units=lambda tokens=tokens: tokens)  # type: ignore[misc]
        for tokens in unpack_tokens(plain)
    ]
    return fingerprints([(one, choices)])[0].tobytes()


def distinct(table: Any) -> Any:  # noqa: ANN401 - likewise
    """Return a table of contexts without repeats."""
    return table.group_by([*_CONTEXT, "conversation"]).aggregate([])


def count_conversations(table: Any) -> Any:  # noqa: ANN401 - likewise
    """Return how many conversations hold each context.

    Args:
        table: From `contexts_of`; of several segments, joined, with all rows of a context in it.

    Returns:
        A table of key_id, unit, fingerprint and conversations.
    """
    counted = distinct(table).group_by(_CONTEXT).aggregate([("conversation", "count")])
    return counted.rename_columns([*_CONTEXT, "conversations"])


def count_contexts(parts: Iterable[Any], *, n_bytes: int, folder: Path) -> Iterator[Any]:
    """Yield how many conversations hold each context, over tables of rows.

    Args:
        parts: Tables of rows.
        n_bytes: The segments' size, from which follows in how many parts they are counted.
        folder: Where files may lie meanwhile; they are as secret as the key.

    Yields:
        Tables of key_id, unit, fingerprint and conversations; over all of them by fingerprint,
        key and unit, in ascending order.
    """
    schema = pa.schema(
        [
            ("key_id", pa.string()),
            ("unit", pa.string()),
            ("fingerprint", pa.uint64()),
            ("conversation", pa.binary()),
        ]
    )
    exploded = (contexts_of(part).select(schema.names) for part in parts)
    n_parts = 1 + n_bytes // _PART_BYTES
    for part in in_parts(exploded, schema, _by_fingerprint, n_parts=n_parts, folder=folder):
        order = [(name, "ascending") for name in ("fingerprint", "key_id", "unit")]
        yield count_conversations(part).sort_by(order)


def _by_fingerprint(table: Any) -> NDArray[np.uint64]:  # noqa: ANN401 - likewise
    found: NDArray[np.uint64] = table["fingerprint"].to_numpy()
    return found


def count_contexts_with_ray(paths: Sequence[str], **options: Any) -> Any:  # noqa: ANN401 - likewise
    """Return the same as a Ray dataset, read and counted by a cluster.

    Args:
        paths: The segments, as pyarrow reads them.
        options: For `ray.data.read_parquet`, such as a file system.
    """
    import ray.data  # noqa: PLC0415 - takes seconds, and only a fleet needs it

    rows = ray.data.read_parquet(list(paths), columns=list(CONTEXT_COLUMNS), **options)
    found = rows.map_batches(contexts_of, batch_format="pyarrow", batch_size=None)
    together = found.repartition(max(2, len(paths)), keys=_CONTEXT)
    return together.map_batches(count_conversations, batch_format="pyarrow", batch_size=None)


def replies_of(
    parts: Iterable[Any], *, n_rows: int, folder: Path, with_contents: bool = False
) -> Iterator[Any]:
    """Yield one row a reply: what began, and how it ended; `open` where it did not.

    Args:
        parts: Tables of rows, with `REPLY_COLUMNS`; and the contents, where they are wanted.
        n_rows: How many rows there are, from which follows in how many parts they are joined.
        folder: Where files may lie meanwhile.
        with_contents: Whether the replies have their contents.

    Yields:
        Tables of replies, each in the order in which they began: some 100,000 replies at a time,
        and all at once where there are no more.
    """
    names = [*REPLY_COLUMNS, *(["contents"] if with_contents else [])]
    rows = (_undictionaried(part.select(names)) for part in parts)
    named = (part.filter(pc.is_valid(part["reply"])) for part in rows)
    schema = _undictionaried(SCHEMA.empty_table().select(names)).schema
    n_parts = 1 + n_rows // _PART_ROWS
    for part in in_parts(named, schema, _by_reply, n_parts=n_parts, folder=folder):
        yield _joined(part)


def _by_reply(table: Any) -> NDArray[np.uint64]:  # noqa: ANN401 - likewise
    names = b"".join(one[:8] for one in table["reply"].to_pylist())
    return np.frombuffer(names, ">u8").astype(np.uint64)


def _joined(rows: Any) -> Any:  # noqa: ANN401 - likewise
    """Return replies from all the rows that they have."""
    ends = [name for name in _ENDED if name in rows.column_names]
    begun = _first(rows.filter(pc.equal(rows["kind"], int(Kind.BEGIN))))
    ended = _first(rows.filter(pc.equal(rows["kind"], int(Kind.END))))
    begun = begun.select(["reply", "node", "at_us", *_BEGUN]).rename_columns(
        ["reply", "node", "begun_us", *_BEGUN]
    )
    ended = ended.select(["reply", "at_us", *ends]).rename_columns(["reply", "ended_us", *ends])
    joined = begun.join(ended, "reply", join_type="full outer")
    outcome = pc.fill_null(joined["outcome"], "open")
    place = joined.schema.get_field_index("outcome")
    return joined.set_column(place, "outcome", outcome).sort_by(
        [("begun_us", "ascending"), ("reply", "ascending")]
    )


def with_plain_tokens(replies: Any, vault: Vault) -> Any:  # noqa: ANN401 - likewise
    """Return replies with a column `tokens`: of each choice, where they were kept and not erased.

    It takes the place of the contents.

    Args:
        replies: From `replies_of`, with contents.
        vault: The data keys of the node's accounts.
    """
    tokens: list[list[list[int]] | None] = []
    for row in replies.select(["reply", "account", "keeps", "contents"]).to_pylist():
        plain = None
        if row["keeps"] == Keeps.TOKENS and row["contents"] is not None:
            plain = vault.open(row["account"], row["reply"], row["contents"])
        tokens.append(None if plain is None else [one.tolist() for one in unpack_tokens(plain)])
    kind = pa.list_(pa.list_(pa.uint32()))
    return replies.drop_columns(["contents"]).append_column("tokens", pa.array(tokens, kind))


def _first(rows: Any) -> Any:  # noqa: ANN401 - likewise
    """Return the first row of each reply."""
    numbered = rows.append_column("place", pa.array(np.arange(len(rows))))
    first = numbered.group_by("reply").aggregate([("place", "min")])
    return rows.take(first["place_min"].sort())


def _words(column: Any) -> Any:  # noqa: ANN401 - likewise
    return column.cast(pa.string())


def _undictionaried(table: Any) -> Any:  # noqa: ANN401 - likewise
    """Return a table whose words are plain strings, so that tables can be joined."""
    fields = [
        pa.field(one.name, pa.string() if pa.types.is_dictionary(one.type) else one.type)
        for one in table.schema
    ]
    return table.cast(pa.schema(fields))
