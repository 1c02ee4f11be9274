"""Counts: the observer. Those of one worker are for its other parts in `service.shared`."""

from pounce.plugin import Completed, Service

OTHERS = "*"


class Visits:
    """How often each path was asked for in this worker."""

    def __init__(self, most: int) -> None:
        self.by_path: dict[str, int] = {}
        self.open = 0
        """Upgrades that were accepted and are not over."""
        self._most = most

    @classmethod
    def of(cls, service: Service) -> Visits:
        """Those of a worker, which are made when they are first asked for."""
        found: Visits | None = service.shared.get("visits")
        if found is None:
            found = service.shared["visits"] = cls(service.settings["visits"].most)
        return found

    def name_of(self, path: str) -> str:
        """What it is counted as: clients ask for whatever they like, and there must be an end to what is kept."""
        return path if path in self.by_path or len(self.by_path) < self._most else OTHERS

    def begin(self, paths: list[str]) -> None:
        """Count anew, and these for certain."""
        self.by_path = dict.fromkeys(paths[: self._most], 0)

    def upgraded(self, exchange: Completed) -> None:
        self.open += 1

    def completed(self, exchange: Completed) -> None:
        if exchange.status == 101:
            self.open -= 1
        name = self.name_of(exchange.head.target.partition(b"?")[0].decode("ascii", "replace"))
        self.by_path[name] = self.by_path.get(name, 0) + 1
