"""Whose account a text was served to: the account channel, read and held against codes."""

from watermark.tracing.accounts import AccountTrace, BodyTrace, trace_accounts
from watermark.tracing.codes import CodeSums, code_sums

__all__ = ["AccountTrace", "BodyTrace", "CodeSums", "code_sums", "trace_accounts"]
