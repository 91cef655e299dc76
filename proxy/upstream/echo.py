"""Whether an upstream repeats the text that it is given to continue, learned from its answers."""

from __future__ import annotations

from proxy.errors import UpstreamProtocolError


class Echo:
    """Cuts off what was given, where an upstream repeats it.

    Whether it does is learned from its first answer that says so, and held to from then on: text
    that merely happens to repeat itself is not cut.
    """

    def __init__(self) -> None:
        """Begin without knowing."""
        self._repeats: bool | None = None

    def cut(self, texts: list[str], given: str) -> list[str]:
        """Return what is new in the texts of one answer.

        Args:
            texts: One a choice.
            given: The text that was continued.

        Raises:
            UpstreamProtocolError: It repeats it in some answers and not in others.
        """
        if given and self._repeats is None and texts:
            self._repeats = all(text.startswith(given) for text in texts)
        if not (given and self._repeats):
            return texts
        if not all(text.startswith(given) for text in texts):
            raise UpstreamProtocolError(
                "the upstream repeats the text that it continues in some answers and not in "
                'others; set continuation = "none" for this model'
            )
        return [text[len(given) :] for text in texts]
