"""How limits that hold for the whole server are divided among those who keep to them."""

from dataclasses import dataclass
from typing import Self

from pounce.config import ServerConfig

__all__ = ["Limits", "portion_of"]


def portion_of(total: int, parts: int, number: int) -> int:
    """What part `number` of `parts` may have, 1 at the least; 0, no limit, is no limit for each."""
    share, rest = divmod(total, parts)
    return max(1, share + (number < rest)) if total else 0


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of these names: for the whole server, or what a part of it has of them."""

    max_connections: int
    limit_concurrency: int
    request_queue_max_depth: int

    @classmethod
    def of(cls, config: ServerConfig) -> Self:
        """What a configuration says."""
        return cls(config.max_connections, config.limit_concurrency, config.request_queue_max_depth)

    def portion(self, parts: int, number: int) -> Self:
        """What part `number` of `parts` may have of each."""
        return type(self)(
            portion_of(self.max_connections, parts, number),
            portion_of(self.limit_concurrency, parts, number),
            portion_of(self.request_queue_max_depth, parts, number),
        )
