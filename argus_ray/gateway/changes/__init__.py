"""One stream for all that changes: own tasks, their progress, one log."""
