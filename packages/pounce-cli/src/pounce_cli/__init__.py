"""The `pounce` command: serve ASGI applications from the command line."""
