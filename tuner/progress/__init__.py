"""The progress and the result of a search on a terminal, in plain lines, or as JSON."""
