"""The laboratory of the radioactivity audit."""
