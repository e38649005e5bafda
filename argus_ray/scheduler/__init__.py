"""The scheduler's work without Ray: follow what is alive, admit what fits, keep the disk."""
