"""What the pool says of an upstream that is too slow: which bound was met."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from proxy.config import UpstreamConfig
from proxy.errors import UpstreamTimeoutError
from proxy.upstream.client import UpstreamClient


@pytest.mark.parametrize(
    ("error", "bound"),
    [
        (httpx2.ConnectTimeout, "connect_timeout_s"),
        (httpx2.ReadTimeout, "read_timeout_s"),
        (httpx2.WriteTimeout, "read_timeout_s"),
        (httpx2.PoolTimeout, "max_connections"),
    ],
)
def test_a_timeout_names_the_bound_that_was_met(
    error: type[httpx2.TimeoutException], bound: str
) -> None:
    def slow(request: httpx2.Request) -> httpx2.Response:
        raise error("slow", request=request)

    async def work() -> None:
        config = UpstreamConfig(url="http://127.0.0.1:1")
        async with UpstreamClient(config, transport=httpx2.MockTransport(slow)) as client:
            with pytest.raises(UpstreamTimeoutError, match=f"raise {bound}$"):
                await client.post_json("/v1/completions", {}, [])
            with pytest.raises(UpstreamTimeoutError, match=f"raise {bound}$"):
                async with client.stream("GET", b"/x", headers=[], content=None):
                    raise AssertionError

    asyncio.run(work())
