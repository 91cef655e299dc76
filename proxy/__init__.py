"""A reverse proxy that marks the text of a model API with a keyed statistical watermark."""
