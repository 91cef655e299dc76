"""All inbound HTTP: decode, decide, drive, encode."""
