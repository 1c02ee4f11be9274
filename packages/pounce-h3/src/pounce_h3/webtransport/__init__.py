"""WebTransport: sessions as exchanges, with the ASGI scope `webtransport`."""
