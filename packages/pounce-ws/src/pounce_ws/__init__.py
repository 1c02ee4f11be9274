"""WebSocket (RFC 6455, RFC 7692, RFC 8441) for pounce. Being installed is all it takes."""
