"""The HTTP gateway: FastAPI on Ray Serve. Authenticate, parse, one call to the state actor, render."""
