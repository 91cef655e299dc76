"""Sans-IO state machines that choose the tokens of a reply.

A flow is a generator: it yields a `Draft` (a question to the upstream) and is sent `Drafted` (the
answer), or yields `Chosen` (a token of the reply) and is sent None; it returns the reason for
which the reply ended. Whoever drives it does the I/O.
"""
