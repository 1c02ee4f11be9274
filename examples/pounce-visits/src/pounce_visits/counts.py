"""Counts: the observer. It counts in `service.counts`, so that they are added up for the whole server."""

from pounce.plugin import Completed, Service

COUNT = "visits "
"""What the names of its counts begin with."""
OPEN = "visits.open"
"""The gauge of upgrades that were accepted and are not over."""
OTHERS = "*"


class Visits:
    """How often each path was asked for in one worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._paths: set[str] = set()
        self._most: int = service.settings["visits"].most

    @classmethod
    def of(cls, service: Service) -> Visits:
        """Those of a worker, which are made when they are first asked for."""
        found: Visits | None = service.shared.get("visits")
        if found is None:
            found = service.shared["visits"] = cls(service)
        return found

    def name_of(self, path: str) -> str:
        """What it is counted as: clients ask for whatever they like, and there must be an end to what is kept."""
        if len(self._paths) < self._most:
            self._paths.add(path)
        return COUNT + (path if path in self._paths else OTHERS)

    def upgraded(self, exchange: Completed) -> None:
        self._rise(1)

    def completed(self, exchange: Completed) -> None:
        if exchange.status == 101:
            self._rise(-1)
        self._service.count(self.name_of(exchange.head.target.partition(b"?")[0].decode("ascii", "replace")))

    def _rise(self, by: int) -> None:
        gauges = self._service.gauges
        gauges[OPEN] = gauges.get(OPEN, 0) + by
