"""The request core: what happens to a request, whatever wire brought it. No sockets, no transports."""
