"""Resizing: more and fewer workers while the server runs."""

import logging

from pounce.supervisor.generations import Generations
from pounce.supervisor.messages import Resize

__all__ = ["Resizing"]

log = logging.getLogger("pounce.supervisor")


class Resizing:
    """What was asked for, and cannot be done before a reload is over."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._later = 0
        """Workers to add then."""

    def resize(self, by: int) -> None:
        """Serve with so many workers more, or fewer with a negative number; one at the least."""
        generations = self._generations
        if generations.coming:
            self._later += by
            return
        if generations.stopping or not generations.serves:
            return
        generations.workers = max(1, generations.workers + by)
        log.info("Serving with %d workers", generations.workers)
        if generations.mode != "process":
            for place in generations.places:
                if place.child is not None:
                    place.child.channel.send(Resize(generations.workers))
            generations.share_datagrams()
        else:
            generations.fit()

    def go_on(self) -> None:
        """The reload is over."""
        by, self._later = self._later, 0
        if by:
            self.resize(by)
