"""Argus: a training-task service on a native Ray cluster. Imports nothing, so that the watchdog starts at once."""

__version__ = "0.1.0"
