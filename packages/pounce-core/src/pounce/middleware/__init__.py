"""Middleware: ASGI applications around ASGI applications, each usable under any server.

What the setting `middleware` may hold is read by `pounce.middleware.factories`.
"""
