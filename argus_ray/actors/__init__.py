"""The detached actors: thin shells that put the service and the scheduler into Ray."""
