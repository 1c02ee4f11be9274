"""Dockerfile: what an image starts, from ENTRYPOINT and CMD.

    ENTRYPOINT    CMD           what is run
    none          any           CMD
    exec form     exec form     ENTRYPOINT, with the words of CMD as its arguments
    exec form     shell form    ENTRYPOINT, with /bin/sh, -c and the text as its arguments
    shell form    any           ENTRYPOINT; nobody looks at CMD

The last of each counts. A stage has those of the stage that it is made from, but for a CMD where it has an ENTRYPOINT
of its own.
"""

import re
from typing import NamedTuple

__all__ = ["Image", "images"]

_instruction = re.compile(r"\s*(FROM|ENTRYPOINT|CMD)(?=[\s\[])\s*(.+)", re.IGNORECASE).match


class Image(NamedTuple):
    """What one stage starts, as it is written; empty for what it does not have."""

    entrypoint: str = ""
    cmd: str = ""


def images(text: str) -> list[Image]:
    """Those of all stages in their order; empty for what is no Dockerfile."""
    stages: dict[str, Image] = {}
    name, inherited = "", ""
    # A comment may stand between the lines of one instruction.
    text = re.sub(r"(?m)^[ \t]*#.*(?:\n|\Z)", "", text)
    for line in re.sub(r"\\[ \t]*\r?\n", " ", text).splitlines():
        match = _instruction(line)
        if match is None:
            continue
        instruction, rest = match[1].upper(), match[2].strip()
        if instruction == "FROM":
            base, *words = [word for word in rest.split() if not word.startswith("--")] or [""]
            image = stages.get(base.lower(), Image())
            name = words[1].lower() if len(words) == 2 else str(len(stages))
            inherited = image.cmd
            stages[name] = image
        elif name in stages:
            image = stages[name]
            if instruction == "CMD":
                stages[name], inherited = image._replace(cmd=rest), ""
            else:
                cmd = "" if inherited else image.cmd
                stages[name], inherited = Image(rest, cmd), ""
    return [*stages.values()]
