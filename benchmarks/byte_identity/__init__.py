"""Replies that are not marked against the upstream's bytes."""
