"""The shared filesystem: what is written whole, what is read below a root, all of it bounded."""
