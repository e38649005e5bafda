"""Tasks over HTTP: routes and wire."""
