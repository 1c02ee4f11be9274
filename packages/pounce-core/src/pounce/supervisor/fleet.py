"""FleetNews: lets all workers know how the others are, where somebody asks them for it.

The health of one worker says little of a server, and by itself none can tell a reload from the end.
"""

from pounce.config import ServerConfig
from pounce.contract.wire import Fleet
from pounce.supervisor.child import Child, State
from pounce.supervisor.generations import Generations
from pounce.supervisor.messages import Tell

__all__ = ["FleetNews"]


class FleetNews:
    """What the processes were told last."""

    def __init__(self, config: ServerConfig, generations: Generations) -> None:
        self._asked_for = config.probes
        self._generations = generations
        self._fleet: Fleet | None = None
        self._told: set[Child] = set()
        self.relieved = False
        """Another server has taken over."""

    def tell(self) -> None:
        """Tell those who do not know it yet."""
        if not self._asked_for:
            return
        before, self._fleet = self._fleet, self._state()
        told = self._told if self._fleet == before else set()
        self._told = {
            child for child in self._generations.children if child.ready is not None and not child.channel.ended
        }
        for child in self._told - told:
            child.channel.send(Tell(self._fleet))

    def _state(self) -> Fleet:
        serving = starting = draining = 0
        for child in self._generations.children:
            workers = child.beat.workers if child.beat is not None else ()
            count = len(workers) or child.spec.workers
            if child.state is State.STARTING:
                starting += count
            elif child.state is State.SERVING:
                leaving = sum(worker.draining for worker in workers)
                serving += count - leaving
                draining += leaving
            elif child.state is State.DRAINING:
                draining += count
        ready = self.relieved or (not self._generations.stopping and serving > 0)
        return Fleet(self._generations.workers, serving, starting, draining, ready)
