"""Makes `tests/` importable, for the helpers that several folders share."""
