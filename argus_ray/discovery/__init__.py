"""How machines find the head: head.json and the epoch, files on the shared filesystem."""
