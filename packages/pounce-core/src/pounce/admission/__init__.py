"""Who may start: what bounds the requests, connections and bytes of a server."""
