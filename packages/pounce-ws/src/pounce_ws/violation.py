"""What a client did wrong once the WebSocket was open."""

__all__ = ["Violation"]


class Violation(Exception):
    """The connection must be closed with `code` (RFC 6455 7.4.1); `reason` tells the client why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
