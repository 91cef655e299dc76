"""The service's command line: argument parsing, starting, printing."""
