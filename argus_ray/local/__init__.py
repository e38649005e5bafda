"""A whole cluster on one machine, for trying Argus out and for tests."""
