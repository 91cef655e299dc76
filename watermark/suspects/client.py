"""What carries requests to a suspect's server: in a rate, tried again, never without end.

Rule 1: what fails for a while (429, 5xx, a cut connection, an answer that cannot be read) is tried
again within bounds, later each time. Rule 2: every request waits for its turn in the rate, whoever
makes it. Rule 3: what is sent and what comes back stand in no message.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import httpx2

from watermark.errors import SuspectError
from watermark.suspects.dialects import Dialect, Sampling, headers_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
MAX_BYTES: Final = 1 << 22
FOR_GOOD: Final = frozenset({401, 402, 403, 404, 405})
OF_A_PROMPT: Final = frozenset({400, 413, 422})
_LONGEST_WAIT_S: Final = 60.0
_CONNECT_S: Final = 20.0
"""Whoever takes longer to be reached is down, which costs nothing: other time-outs may."""
_UNSENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
    httpx2.InvalidURL,
    httpx2.ProxyError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How a server is asked.

    Attributes:
        url: Its base, ending before `/v1`.
        model: The model's name.
        dialect: The endpoint.
        sampling: How it is to answer.
        api_key: Sent as the dialect has it; empty for none.
        concurrency: Requests at a time, >= 1.
        requests_per_minute: At most; 0 for no limit.
        timeout_s: For one whole answer, from the request to its last byte.
        tries: Requests a prompt, >= 1.
        first_wait_s: Before the second try; doubled for each one after.
    """

    url: str
    model: str
    dialect: Dialect = Dialect.CHAT
    sampling: Sampling = field(default_factory=Sampling)
    api_key: str = field(default="", repr=False)
    concurrency: int = 4
    requests_per_minute: float = 0.0
    timeout_s: float = 120.0
    tries: int = 4
    first_wait_s: float = 1.0


class TryAgainError(Exception):
    """What failed may work later.

    Attributes:
        wait_s: Seconds that the server asks to wait.
        may_be_billed: Whether an answer was on its way, which is paid for and cannot be read.
    """

    def __init__(self, reason: str, wait_s: float = 0.0, *, may_be_billed: bool = False) -> None:
        super().__init__(reason)
        self.wait_s = wait_s
        self.may_be_billed = may_be_billed


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server sent back.

    Attributes:
        status: Its status.
        data: Its body; None where that is more than `MAX_BYTES`.
    """

    status: int
    data: bytes | None


class Line:
    """The way to one server, for as long as its settings hold.

    Args:
        settings: How it is asked.
        transport: What carries requests; None for the network.
    """

    def __init__(
        self, settings: ApiSettings, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self.settings = settings
        self._transport = transport
        self._next_start = 0.0

    def client(self) -> httpx2.AsyncClient:
        """Return a client, to be closed by whoever asked for it."""
        return httpx2.AsyncClient(
            base_url=self.settings.url,
            headers=headers_of(self.settings.dialect, self.settings.api_key),
            timeout=httpx2.Timeout(
                self.settings.timeout_s, connect=min(_CONNECT_S, self.settings.timeout_s / 2)
            ),
            transport=self._transport,
        )

    async def persist(
        self, once: Callable[[], Awaitable[T]], failed: Callable[[TryAgainError], None]
    ) -> tuple[T | None, int]:
        """Try something until it works, and return what came of it, with the tries it took.

        Args:
            once: What is tried, each time in its turn.
            failed: Told of each try that failed.

        Returns:
            What it gave, None where no try worked; and tries.
        """
        settings = self.settings
        for number in range(1, settings.tries + 1):
            await self._pace()
            try:
                return await once(), number
            except TryAgainError as err:
                failed(err)
                if number < settings.tries:
                    wait = max(err.wait_s, settings.first_wait_s * 2 ** (number - 1))
                    await asyncio.sleep(min(wait, _LONGEST_WAIT_S))
        return None, settings.tries

    async def send(self, client: httpx2.AsyncClient, path: str, body: bytes) -> Reply:
        """Send one request.

        Raises:
            TryAgainError: It failed for a while.
            SuspectError: The server refuses for good.
        """
        status, retry_after, data = await _send(client, path, body, self.settings.timeout_s)
        if status in FOR_GOOD:
            raise SuspectError(
                f"the suspect answered with status {status}; correct URL, model, dialect or API key"
            )
        if status != httpx2.codes.OK and status not in OF_A_PROMPT:
            raise TryAgainError(f"status {status}", retry_after)
        return Reply(status=status, data=data)

    async def _pace(self) -> None:
        """Wait until the rate allows another request."""
        if not self.settings.requests_per_minute:
            return
        now = asyncio.get_running_loop().time()  # the same clock in every session
        start = max(now, self._next_start)
        self._next_start = start + 60.0 / self.settings.requests_per_minute
        await asyncio.sleep(start - now)


async def _send(
    client: httpx2.AsyncClient, path: str, body: bytes, timeout_s: float
) -> tuple[int, float, bytes | None]:
    """Return status, seconds that the server asks to wait, and the body; None where it is huge."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("POST", path, content=body) as response,
        ):
            data = bytearray()
            async for part in response.aiter_bytes():
                data += part
                if len(data) > MAX_BYTES:
                    return response.status_code, 0.0, None
            retry_after = response.headers.get("retry-after", "")
            wait = float(retry_after) if retry_after.isdigit() else 0.0
            return response.status_code, wait, bytes(data)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ValueError) as err:
        may_be_billed = not isinstance(err, _UNSENT)
        raise TryAgainError(type(err).__name__, may_be_billed=may_be_billed) from None
