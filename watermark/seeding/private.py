"""Private randomness that a repeated request repeats.

What the mark does not key (the copula's noise, repeated contexts, the upstream's seeds) is drawn
from a generator that only the holder of the key can foresee. With a client's `seed`, equal
requests must give equal answers, so the generator's seed is an HMAC over both.
"""

from __future__ import annotations

import hashlib
import hmac

from watermark.keys import LABEL_PRIVATE_DRAWS, SecretKey


def private_seed(secret: SecretKey, *, seed: int, request_digest: bytes) -> int:
    """Return a 256-bit seed for the private draws of one reply.

    Args:
        secret: The marking epoch's secret.
        seed: The client's seed, any integer.
        request_digest: Digest of everything in the request that shapes the reply, 32 bytes.
    """
    key = secret.subkey(LABEL_PRIVATE_DRAWS, 32)
    text = str(seed).encode()
    message = len(text).to_bytes(4, "little") + text + request_digest
    return int.from_bytes(hmac.new(key, message, hashlib.sha256).digest(), "little")
