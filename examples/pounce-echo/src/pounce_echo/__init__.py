"""Two protocols that begin as a request: an upgrade, and a wire that takes over from HTTP/1.1."""

from pounce.plugin import API_VERSION, Plugin, Switch, Upgrade
from pounce_echo.echo import Echo
from pounce_echo.shout import Shout

plugin = Plugin(
    name="echo",
    api=API_VERSION,
    upgrades=(Upgrade(token=b"echo", open=Echo),),
    switches=(Switch(token=b"shout", connect=Shout),),
)
