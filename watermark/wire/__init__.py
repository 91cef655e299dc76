"""Sans-IO codecs of the dialects that model APIs speak: bytes to typed values and back."""
