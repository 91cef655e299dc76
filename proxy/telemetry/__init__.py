"""What may be counted; never text, never keys."""
