"""DNS: the addresses of a few names (RFC 1035); a wire over datagrams with a port of its own.

A question needs no memory, so that there are no connections: each worker answers what it reads. Where a question claims
to come from is not known, so an answer is hardly longer than what was asked.
"""

import asyncio
import ipaddress
import struct
from dataclasses import dataclass
from typing import cast

from pounce.errors import ConfigError
from pounce.plugin import API_VERSION, Address, DatagramTransport, DatagramWire, Plugin, Service, option

HEAD = struct.Struct("!6H")
QUERY_MAX, LABEL_MAX, RECORDS_MAX = 512, 63, 4
ANSWER, AUTHORITATIVE, RECURSION_DESIRED, OPCODE = 0x8000, 0x0400, 0x0100, 0x7800
FORMAT_ERROR, NAME_ERROR, NOT_IMPLEMENTED = 1, 3, 4
INTERNET, TTL = 1, 60
KINDS = {4: 1, 6: 28}
"""The type of a record by the version of its address: A and AAAA."""


@dataclass(frozen=True, slots=True)
class DNSSettings:
    """`plugin_settings["dns"]`. Raises `ConfigError`."""

    records: str = option("", "What is known: name=address, separated by spaces.")

    def __post_init__(self) -> None:
        self.table()

    def table(self) -> dict[bytes, list[tuple[int, bytes]]]:
        """Type and data of the records of each name."""
        found: dict[bytes, list[tuple[int, bytes]]] = {}
        for record in self.records.split():
            name, _, text = record.partition("=")
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                raise ConfigError(f"dns.records has {record!r}, which is no name=address") from None
            found.setdefault(name.lower().encode(), []).append((KINDS[address.version], address.packed))
        return found


def question_of(data: bytes) -> tuple[bytes, int, int]:
    """The name that is asked for, in lower case, the type, and where the question ends. Raises `ValueError`."""
    labels: list[bytes] = []
    at = HEAD.size
    while at < len(data) and (size := data[at]):
        if size > LABEL_MAX:
            raise ValueError("no label is as long as that")
        labels.append(data[at + 1 : at + 1 + size])
        at += 1 + size
    kind, network = struct.unpack_from("!2H", data[:QUERY_MAX].ljust(at + 5, b"\xff"), at + 1)
    if network != INTERNET:
        raise ValueError("it is not whole, or asks for another network")
    return b".".join(labels).lower(), kind, at + 5


class Responder(asyncio.DatagramProtocol):
    """All questions of one address, in one worker."""

    def __init__(self, service: Service, address: Address) -> None:
        self._service = service
        self._records = cast(DNSSettings, service.settings["dns"]).table()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        # To answer an answer would go on for ever.
        if HEAD.size <= len(data) <= QUERY_MAX and not data[2] & 0x80:
            self._service.count("dns_answered")
            self._transport.sendto(self._answer(data), addr)

    def _answer(self, data: bytes) -> bytes:
        number, flags, questions, *_ = HEAD.unpack_from(data)
        flags = ANSWER | AUTHORITATIVE | (flags & (OPCODE | RECURSION_DESIRED))
        if flags & OPCODE or questions != 1:
            return HEAD.pack(number, flags | (NOT_IMPLEMENTED if flags & OPCODE else FORMAT_ERROR), 0, 0, 0, 0)
        try:
            name, kind, end = question_of(data)
        except ValueError:
            return HEAD.pack(number, flags | FORMAT_ERROR, 0, 0, 0, 0)
        known = self._records.get(name)
        found = [address for its_kind, address in known or () if its_kind == kind][:RECORDS_MAX]
        head = HEAD.pack(number, flags | (NAME_ERROR if known is None else 0), 1, len(found), 0, 0)
        # The name of each is a pointer to that of the question (RFC 1035 4.1.4).
        parts = [struct.pack("!3HIH", 0xC00C, kind, INTERNET, TTL, len(each)) + each for each in found]
        return head + data[HEAD.size : end] + b"".join(parts)


plugin = Plugin(
    name="dns", api=API_VERSION, datagrams=(DatagramWire(name="dns", connect=Responder),), settings=DNSSettings
)
