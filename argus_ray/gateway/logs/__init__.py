"""Logs over HTTP: the tail, and a stream that follows."""
