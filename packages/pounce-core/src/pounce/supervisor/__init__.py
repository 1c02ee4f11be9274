"""The supervisor: keeps the processes alive that serve, and never sees a request."""
