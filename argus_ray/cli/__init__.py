"""The command `argus`: the HTTP API at a terminal. It knows the client, and nothing of the server."""
