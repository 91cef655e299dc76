"""The command line: argument parsing and printing, no logic.

Rule 1: standard output holds data only; everything else goes to standard error, prefixed
`watermark: `, in lower case and without a full stop. Rule 2: 0 says that the command did its work,
1 an error, 2 a mistake in the command itself, 3 (`detect --exit-code`) that no test rejected its
null, 130 an interrupt. Rule 3: key bytes, text, and values of single positions are never printed.
"""
