"""The one pooled HTTP client, and its failures in our own words."""

from __future__ import annotations

import contextlib
import copy
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import httpx2
import msgspec

from proxy.errors import (
    UpstreamError,
    UpstreamProtocolError,
    UpstreamStatusError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from proxy.upstream.headers import of_decoded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from proxy.config import UpstreamConfig

    Pairs = list[tuple[bytes, bytes]]


AnswerT = TypeVar("AnswerT")
_BOUNDS: Final = {
    httpx2.ConnectTimeout: "connect_timeout_s",
    httpx2.PoolTimeout: "max_connections",  # all of them were in use for as long
}
_BROKEN_OFF: Final = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)

# Idle connections are let go before a server does it (uvicorn: 5 s); a request that meets the
# closing would be lost.
_KEEP_IDLE_S: Final = 3.0


class UpstreamClient:
    """Sends requests to one model API.

    Use it as an asynchronous context manager; every connection closes with it. A cancelled call
    closes its upstream request at once.

    Attributes:
        also: Fields that every question says besides its own.
    """

    def __init__(
        self, config: UpstreamConfig, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Prepare the pool.

        Args:
            config: Where and how long.
            transport: Stands in for the network in tests.
        """
        self._config = config
        self.also: Mapping[str, Any] = {}
        self._client = httpx2.AsyncClient(
            base_url=config.url,
            timeout=httpx2.Timeout(
                connect=config.connect_timeout_s,
                read=config.read_timeout_s,
                write=config.read_timeout_s,
                pool=config.read_timeout_s,
            ),
            limits=httpx2.Limits(
                max_connections=config.max_connections,
                max_keepalive_connections=config.max_connections,
                keepalive_expiry=_KEEP_IDLE_S,
            ),
            follow_redirects=False,
            trust_env=False,
            cookies=_no_cookies(),
            transport=transport,
        )

    def saying(self, fields: Mapping[str, Any]) -> UpstreamClient:
        """Return a view of this pool whose questions say some fields more."""
        view = copy.copy(self)
        view.also = fields
        return view

    async def __aenter__(self) -> Self:
        """Open the pool."""
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def post_json(self, path: str, body: Any, headers: Pairs) -> bytes:  # noqa: ANN401
        """Send a JSON body and return the bytes of a successful answer.

        Raises:
            UpstreamStatusError: The upstream answered with another status than 200.
            UpstreamUnreachableError: No connection, or it broke off.
            UpstreamTimeoutError: Silence for too long.
        """
        content = msgspec.json.encode({**body, **self.also} if self.also else body)
        sent = [*headers, (b"content-type", b"application/json")]
        with self._errors():
            try:
                response = await self._client.post(path, content=content, headers=sent)
            except _BROKEN_OFF:
                # A connection that idled may close under the request (RFC 9112, 9.3.1); what we
                # ask here changes nothing upstream, so it is asked once more.
                response = await self._client.post(path, content=content, headers=sent)
        return _successful(response)

    async def get_json(self, path: str, headers: Pairs) -> bytes:
        """Fetch a path and return the bytes of a successful answer; errors as `post_json`."""
        with self._errors():
            response = await self._client.get(path, headers=headers)
        return _successful(response)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        target: bytes,
        *,
        headers: Pairs,
        content: AsyncIterator[bytes] | bytes | None,
    ) -> AsyncIterator[httpx2.Response]:
        """Open a request whose answer is read as it comes, undecoded.

        Args:
            method: Any.
            target: Path and query, which reach the upstream as they are: `..` and escapes too.
            headers: All that are sent, besides the host.
            content: The body; None for none.

        Raises:
            UpstreamUnreachableError: No connection, or it broke off.
            UpstreamTimeoutError: Silence for too long.
        """
        base = self._client.base_url
        raw = base.raw_path.rstrip(b"/") + target
        request = self._client.build_request(
            method,
            base.copy_with(raw_path=raw),
            headers=headers,
            content=content,
            extensions={"target": raw},
        )
        # The client library adds these where the caller sent none; bodies pass as they are.
        for name in ("accept", "accept-encoding", "user-agent", "connection"):
            if not any(key == name.encode() for key, _ in headers):
                request.headers.pop(name, None)
        with self._errors():
            response = await self._client.send(request, stream=True)
            try:
                yield response
            finally:
                await response.aclose()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the library's errors into ours; what the caller raises passes."""
        url = self._config.url
        try:
            yield
        except httpx2.TimeoutException as err:
            raise UpstreamTimeoutError(
                f"the upstream at {url} did not answer in time ({type(err).__name__}); check it, "
                f"or raise {_BOUNDS.get(type(err), 'read_timeout_s')}"
            ) from err
        except httpx2.TransportError as err:
            raise UpstreamUnreachableError(
                f"no answer from the upstream at {url} ({type(err).__name__}); check that it "
                "runs and that upstream.url is right"
            ) from err
        except httpx2.HTTPError as err:
            raise UpstreamError(f"the request to {url} failed ({type(err).__name__})") from err


def _no_cookies() -> CookieJar:
    """Return a jar that keeps nothing: one caller's cookies are never another's."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _successful(response: httpx2.Response) -> bytes:
    if response.is_success:
        return response.content
    raise UpstreamStatusError(
        f"the upstream answered with status {response.status_code}",
        upstream_status=response.status_code,
        body=response.content,
        headers=of_decoded(response.status_code, response.headers.raw),
    )


def decode_answer(data: bytes, kind: type[AnswerT]) -> AnswerT:
    """Read an upstream's JSON.

    Raises:
        UpstreamProtocolError: It is not JSON, or not of the form expected.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise UpstreamProtocolError(
            f"the upstream's answer cannot be read ({err}); check that upstream.url is a model "
            "API with the capabilities that the config names"
        ) from err
