"""Each context of a reply is given out once, those of the prompt never."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watermark.engines.replies import ReplyContexts


@given(st.lists(st.integers(0, 3), max_size=40), st.lists(st.integers(0, 3)), st.integers(1, 4))
def test_what_is_given_out_is_the_definitions(
    tokens: list[int], prompt: list[int], width: int
) -> None:
    reply = ReplyContexts(width, prompt=prompt)
    spent = {tuple(prompt[i : i + width]) for i in range(len(prompt) - width + 1)}
    for place, token in enumerate(tokens):
        context = tuple(tokens[place - width : place]) if place >= width else None
        expected = context if context is not None and context not in spent else None
        assert reply.take() == expected
        if expected is not None:
            spent.add(expected)
        reply.extend(token)


def test_special_tokens_start_a_reply_of_their_own() -> None:
    reply = ReplyContexts(2, breaks=frozenset({9}))
    taken = []
    for token in (1, 2, 9, 3, 4, 5):
        reply.extend(token)
        taken.append(reply.take())
    assert taken == [None, (1, 2), None, None, (3, 4), (4, 5)]
