"""The command `argus` as one file, which the server hands out: always the version that it understands."""
