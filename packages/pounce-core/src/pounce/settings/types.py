"""Values that settings choose from."""

from typing import Literal

__all__ = [
    "AltSvc",
    "ApplicationScope",
    "ClientCertificates",
    "ForwardedFamily",
    "IPv6",
    "Interface",
    "Lifespan",
    "LifespanScope",
    "LogFormat",
    "LogLevel",
    "OtelProtocol",
    "QuicEngine",
    "RateLimitFields",
    "Signage",
    "StatsdFormat",
    "TLSVersion",
    "WorkerMode",
    "WorkerStartupFailure",
]

type LogLevel = Literal["debug", "info", "warning", "error", "critical"]
type LogFormat = Literal["auto", "text", "json"]
type ForwardedFamily = Literal["x-forwarded", "forwarded"]
type Lifespan = Literal["auto", "on", "off"]
type Interface = Literal["auto", "asgi", "wsgi"]
type IPv6 = Literal["dual", "only", "off"]
type QuicEngine = Literal["qh3", "zoomies"]
type AltSvc = Literal["auto", "clear", "off"]
type TLSVersion = Literal["1.2", "1.3"]
type ClientCertificates = Literal["none", "optional", "required"]
type LifespanScope = Literal["worker", "process"]
type ApplicationScope = Literal["auto", "worker", "process"]
type RateLimitFields = Literal["refused", "all", "off"]
type WorkerStartupFailure = Literal["shutdown", "ignore"]
type Signage = Literal["full", "minimal", "off"]
type StatsdFormat = Literal["statsd", "dogstatsd"]
type OtelProtocol = Literal["http", "grpc"]
type WorkerMode = Literal["auto", "thread", "process", "subinterpreter", "sync", "async"]
