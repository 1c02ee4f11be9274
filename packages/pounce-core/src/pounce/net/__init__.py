"""Sockets: listening, TLS, choosing a wire, and the base class of connections."""
