"""Tables: from a file to typed columns and rows in order of time."""
