"""Figures of the radioactivity audit: see `python -m benchmarks.radioactivity --help`."""
