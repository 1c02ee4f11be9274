"""Images without an engine: the steps of a Dockerfile in folders, and processes in what they have made.

A stage is a folder with the root of its base. `RUN` is a chroot there, in namespaces of its own and without a network.
An instruction that nothing here knows is an error, so that none is left out unnoticed.
"""

import json
import shlex
import shutil
import string
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

__all__ = ["Image", "Instruction", "build", "instructions", "listed"]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What an engine begins with."""


class Instruction(NamedTuple):
    name: str
    words: str


def instructions(text: str) -> list[Instruction]:
    lines = "\n".join(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [Instruction(*line.split(maxsplit=1)) for line in lines.replace("\\\n", " ").splitlines()]


def listed(words: str) -> list[str]:
    """What an instruction in exec form runs; no shell is in it."""
    found: list[str] = json.loads(words[words.index("[") :])
    return found


@dataclass
class Image:
    """A stage: its root, and what the instructions so far say of what runs there."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    folder: str = "/"
    user: str = "0"
    ports: list[str] = field(default_factory=list)
    signal: str = "SIGTERM"
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def inside(self, *words: str, root: str | None = None) -> list[str]:
        """What runs a command in the image as its user. Each of these programs takes the place of the one before it."""
        users = [line.split(":") for line in (self.root / "etc" / "passwd").read_text().splitlines()]
        group, home = next(((entry[3], entry[5]) for entry in users if entry[2] == self.user), ("0", "/"))
        environment = {"HOME": home, **self.environment}
        return [
            "chroot", f"--userspec=+{self.user}:+{group}", "--groups=", root or str(self.root),
            "env", "-i", f"--chdir={self.folder}", *(f"{name}={value}" for name, value in environment.items()), *words,
        ]  # fmt: skip

    def at(self, path: str) -> Path:
        return self.root / (Path(self.folder) / path).relative_to("/")

    def apply(self, instruction: Instruction, origin: Callable[[str], Path]) -> None:
        """Do what it says. `origin` is the folder that `--from` means."""
        name, words = instruction
        match name:
            case "ENV":
                for pair in shlex.split(words):
                    variable, _, value = pair.partition("=")
                    self.environment[variable] = string.Template(value).substitute(self.environment)
            case "WORKDIR":
                self.folder = words
                self.at(words).mkdir(parents=True, exist_ok=True)
            case "RUN":
                namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
                shell = self.inside("/bin/sh", "-c", words)
                subprocess.run([*namespaces, f"--mount-proc={self.root}/proc", *shell], check=True)
            case "COPY":
                option, *paths = words.split() if words.startswith("--from=") else ["", *words.split()]
                for source in paths[:-1]:
                    self._copy(origin(option.removeprefix("--from=")) / source.lstrip("/"), paths[-1])
            case "USER":
                self.user = words
            case "EXPOSE":
                self.ports = words.split()
            case "STOPSIGNAL":
                self.signal = words
            case "HEALTHCHECK":
                self.health = listed(words)
            case "ENTRYPOINT":
                self.entrypoint = listed(words)
            case "CMD":
                self.command = listed(words)
            case _:
                raise ValueError(f"nobody here knows what {name} does")

    def _copy(self, source: Path, there: str) -> None:
        to = self.at(there)
        (to if there.endswith("/") or source.is_dir() else to.parent).mkdir(parents=True, exist_ok=True)
        # Of a folder its content. Whoever had it, it is root's.
        what = f"{source}/." if source.is_dir() else str(source)
        subprocess.run(["cp", "-a", "--no-preserve=ownership", what, str(to)], check=True)


def build(text: str, context: Path, bases: dict[str, Path]) -> Image:
    """The image of the last stage. `bases` has the roots of what FROM names; they become those of the stages."""
    stages: dict[str, Image] = {}
    stage = Image(Path("/nonexistent"))
    for instruction in instructions(text):
        if instruction.name == "FROM":
            of, _, name = instruction.words.partition(" AS ")
            stage = stages[name] = Image(bases[of])
        else:
            stage.apply(instruction, lambda name: stages[name].root if name else context)
    return stage


def sent(context: Path, to: Path) -> Path:
    """What an engine gets of a folder: all but what .dockerignore names."""
    ignored = [pattern.removeprefix("**/") for pattern in (context / ".dockerignore").read_text().split()]
    shutil.copytree(
        context, to, ignore=lambda _, names: [each for each in names if any(fnmatch(each, one) for one in ignored)]
    )
    return to
