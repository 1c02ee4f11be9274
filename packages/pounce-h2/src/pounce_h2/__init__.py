"""HTTP/2 (RFC 9113) as a plugin of pounce."""
