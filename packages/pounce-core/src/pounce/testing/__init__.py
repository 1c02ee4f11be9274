"""For the tests of applications and of plugins: servers that start in a test, and kits that prove a wire or a parser.

from pounce.testing import TestServer

with TestServer(app) as server:
    httpx.get(server.url)
"""

from pounce.testing.check_parser import check_parser
from pounce.testing.check_wire import CheckFailed, check_wire
from pounce.testing.memory import MemoryConnection, MemoryTransport, RecordingStream
from pounce.testing.proxy import RoundRobinTestProxy
from pounce.testing.server import TestServer, serve

__all__ = [
    "CheckFailed",
    "MemoryConnection",
    "MemoryTransport",
    "RecordingStream",
    "RoundRobinTestProxy",
    "TestServer",
    "check_parser",
    "check_wire",
    "serve",
]
