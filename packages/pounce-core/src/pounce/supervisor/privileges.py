"""Privileges: from root, who opens sockets, to the user who serves."""

import grp
import os
import pwd
import re
import stat
from dataclasses import dataclass

from pounce.config import ServerConfig
from pounce.errors import ConfigError
from pounce.supervisor.control_folder import is_named

__all__ = ["Privileges"]


@dataclass(frozen=True, slots=True)
class Privileges:
    """Who a server is to become."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @classmethod
    def of(cls, config: ServerConfig) -> Privileges | None:
        """Those that are asked for; None for none, or where the process has them already.

        Raises `ConfigError` for a user or group that does not exist, and where it takes root.
        """
        if config.user is None and config.group is None:
            return None
        uid, gid, name = os.getuid(), os.getgid(), None
        if config.user is not None:
            uid, gid, name = _user(config.user, gid)
        if config.group is not None:
            gid = _group(config.group)
        if (uid, gid) == (os.getuid(), os.getgid()) == (os.geteuid(), os.getegid()) and uid:
            # A server that was started by this one for an upgrade.
            return None
        if os.geteuid():
            raise ConfigError("user and group take root", hint="Start the server as root, or leave them out.")
        groups = os.getgrouplist(name, gid) if config.initgroups and name is not None else [gid]
        return cls(uid, gid, tuple(groups))

    def take(self) -> None:
        """Become that user, for good."""
        os.setgroups(self.groups)
        os.setresgid(self.gid, self.gid, self.gid)
        os.setresuid(self.uid, self.uid, self.uid)

    def hand_over_files(self, config: ServerConfig) -> None:
        """The same with what the settings name, and the server has made by now."""
        if is_named(config.control_socket):
            self.hand_over(config.control_socket)
        for path in (config.error_log_file, config.access_log_file):
            if path is not None and re.fullmatch(r"-|journald|syslog(:.*)?", path) is None:
                self.hand_over(path)

    def hand_over(self, path: str | None) -> None:
        """Give what root has made to the user: a file, a socket, a folder, and no link. What cannot be is left.

        A file with several names may be another's, which who may write to the folder has put there.
        """
        if path is None:
            return
        try:
            status = os.lstat(path)
            is_own = stat.S_ISDIR(status.st_mode) or (status.st_nlink == 1 and not stat.S_ISLNK(status.st_mode))
            if status.st_uid == os.getuid() and is_own:
                os.chown(path, self.uid, self.gid, follow_symlinks=False)
        except OSError:
            pass


def _user(text: str, gid: int) -> tuple[int, int, str | None]:
    """Number, group and name."""
    try:
        found = pwd.getpwuid(int(text)) if text.isdecimal() else pwd.getpwnam(text)
        return found.pw_uid, found.pw_gid, found.pw_name
    except KeyError:
        if text.isdecimal():
            return int(text), gid, None
        raise ConfigError(f"there is no user {text!r}") from None


def _group(text: str) -> int:
    try:
        return int(text) if text.isdecimal() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {text!r}") from None
