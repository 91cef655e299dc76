"""Measurements, each a command; see the README."""
