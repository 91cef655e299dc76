"""Every error of the service, in one tree.

The HTTP status and the wire name of each class stand with the class, so that an edge never has
to guess::

    ProxyError
    ├── ConfigError
    ├── BadRequestError
    │   ├── BodyTooLargeError
    │   ├── UnreadableBodyError
    │   ├── NotAllowedError
    │   ├── UnmarkableError
    │   ├── UnknownKeyError
    │   └── BudgetSpentError
    ├── AccessError
    │   └── QuotaError
    ├── AccountsDownError
    ├── NoMarkingKeyError
    ├── LedgerDownError
    ├── UpstreamError
    │   ├── UpstreamUnreachableError
    │   ├── UpstreamTimeoutError
    │   ├── UpstreamProtocolError
    │   └── UpstreamStatusError
    └── EmbeddedError
        └── ModelFolderError
"""

from __future__ import annotations

from typing import ClassVar

from watermark.errors import WatermarkError
from watermark.wire.failures import Failure


class ProxyError(WatermarkError):
    """Root of the service's errors."""

    status: ClassVar[int] = 500
    wire_type: ClassVar[str] = "proxy_error"


class ConfigError(ProxyError):
    """The configuration cannot be served; the message names the field and the remedy."""

    wire_type = "configuration_error"


class BadRequestError(ProxyError):
    """The client asked for something unknown or impossible."""

    status = 400
    wire_type = "invalid_request_error"

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BodyTooLargeError(BadRequestError):
    """A request's body exceeds what the server reads into memory."""

    status = 413


class UnreadableBodyError(BadRequestError):
    """A request's body is packed or written in a way in which it cannot be read here."""

    status = 415


class NotAllowedError(BadRequestError):
    """The caller is not one of those whom the config names for this."""

    status = 403
    wire_type = "permission_error"


class UnmarkableError(BadRequestError):
    """The request cannot be marked, for a reason for which the operator serves none."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"requests of this kind are not served here ({reason}); change it")


class UnknownKeyError(BadRequestError):
    """The key named cannot be asked about here."""

    status = 404


class BudgetSpentError(BadRequestError):
    """The caller has asked about a key as often as one day allows."""

    status = 429
    wire_type = "rate_limit_error"


class AccessError(ProxyError):
    """The caller is not served, or may not ask for this."""

    status = 403
    wire_type = "permission_error"

    def __init__(
        self, message: str, *, reason: str, terms: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.terms = terms
        self.param = param


class QuotaError(AccessError):
    """The account has used up what it may use in this minute or day."""

    status = 429
    wire_type = "rate_limit_error"

    def __init__(self, message: str, *, reason: str, retry_after_s: int) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class AccountsDownError(ProxyError):
    """What accounts have used cannot be looked up or written."""

    status = 503
    wire_type = "service_unavailable"


class NoMarkingKeyError(ProxyError):
    """No key marks the request now, and the operator lets nothing out unmarked."""

    status = 503
    wire_type = "service_unavailable"

    def __init__(self) -> None:
        # Who asks is no operator: what is missing stands in the log and in the metrics.
        super().__init__("the service cannot answer for this model now; try again later")


class LedgerDownError(ProxyError):
    """The ledger cannot be written, and the operator lets nothing out unmarked."""

    status = 503
    wire_type = "service_unavailable"

    def __init__(self) -> None:
        # Who asks is no operator: the cause stands in the log and in the metrics.
        super().__init__("the service cannot answer for this model now; try again shortly")


class UpstreamError(ProxyError):
    """The model API behind the proxy did not do its part."""

    status = 502
    wire_type = "upstream_error"


class UpstreamUnreachableError(UpstreamError):
    """No connection to the upstream, or it broke off."""


class UpstreamTimeoutError(UpstreamError):
    """The upstream did not answer within the configured time."""

    status = 504


class UpstreamProtocolError(UpstreamError):
    """The upstream's answer is not of the form that its capabilities promise."""


class UpstreamStatusError(UpstreamError):
    """The upstream refused; its own status, headers and body go to the client as they are."""

    def __init__(
        self,
        message: str,
        *,
        upstream_status: int,
        body: bytes,
        headers: list[tuple[bytes, bytes]],
    ) -> None:
        super().__init__(message)
        self.upstream_status = upstream_status
        self.body = body
        self.headers = headers


class EmbeddedError(ProxyError):
    """The embedded upstream cannot start or answer."""


class ModelFolderError(EmbeddedError):
    """A model folder is missing, incomplete, or needs an extra that is not installed."""


def failure_of(error: ProxyError) -> Failure:
    """Return an error as the dialects' clients are told of it."""
    param = error.param if isinstance(error, BadRequestError | AccessError) else None
    return Failure(message=str(error), kind=error.wire_type, status=error.status, param=param)
