"""The Python client of the HTTP API, for people: standard library and httpx2 only, so it runs without the server."""
