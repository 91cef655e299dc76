"""Whether an upstream repeats the text that it is given to continue.

It is a property of the upstream, not of an answer: said in the capabilities, by the operator or by
a probe. Where it is not said, no client's text decides it: an answer that begins with what was
given may be repetition or chance ("ha", then "ha, said he"). The upstream is then asked once about
a sentence of the proxy's own, with room for one token, which cannot hold that sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.errors import UpstreamProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

QUESTION: Final = "What does the parcel weigh?"
BEGUN: Final = "The parcel for Orla and her brothers weighs 7,413 grams, and"
"""How the answer begins that is to be continued by one token."""


class Echo:
    """Cuts off what was given, where an upstream repeats it."""

    def __init__(self, *, repeats: bool | None) -> None:
        """Begin with what is known.

        Args:
            repeats: Whether the upstream repeats what it continues; None where nobody said.
        """
        self._repeats = repeats

    async def cut(
        self, texts: list[str], given: str, ask: Callable[[], Awaitable[str]]
    ) -> list[str]:
        """Return what is new in the texts of one answer.

        Args:
            texts: One a choice.
            given: The text that was continued, as the upstream was given it.
            ask: Has the upstream continue `BEGUN` by one token, and returns its answer.

        Raises:
            UpstreamError: It was asked, and did not answer; or it is known to repeat what it
                continues, and did not.
        """
        is_repeated = bool(given and texts) and all(text.startswith(given) for text in texts)
        if self._repeats is None and is_repeated:
            self._repeats = (await ask()).startswith(BEGUN)
        if not (given and texts and self._repeats):
            return texts
        if not is_repeated:
            raise UpstreamProtocolError(
                "the upstream is known to repeat the text that it continues, and did not; set "
                "echo = false for this model, or probe it again"
            )
        return [text[len(given) :] for text in texts]
