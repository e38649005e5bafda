"""The HTTP routes, by topic. Each is thin: read the request, one call of the control plane, render."""
