"""Where secrets lie, one adapter a file."""
