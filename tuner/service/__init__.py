"""The service: searches over HTTP, in a queue, on workers that they share."""
