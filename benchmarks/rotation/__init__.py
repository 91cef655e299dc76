"""Keys that change under a running proxy: see `python -m benchmarks.rotation --help`."""
