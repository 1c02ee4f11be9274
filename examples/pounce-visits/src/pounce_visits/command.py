"""`pounce visits`: the counts of a running server; imported when it is called."""

import json
from urllib.request import urlopen


def visits(url: str = "http://127.0.0.1:8000/visits", most: int = 10) -> None:
    """Show which paths of a server are asked for most."""
    with urlopen(url) as answer:
        told = json.load(answer)
    rows = sorted(told["visits"].items(), key=lambda row: row[1], reverse=True)
    for path, count in rows[:most]:
        print(f"{count:8.0f} {path}")
