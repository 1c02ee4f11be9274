"""Which files count for a reload, by lines as of a .gitignore."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pounce import ConfigError
from pounce.supervisor.reload_rules import Line, rules_of

PATTERNS = [
    "a", "a/", "/a", "a/b", "/a/b", "a/b/", "*", "*.py", "/*.py", "a*", "a?c", "a/*", "a/*.py", "a/**", "**/b",
    "**/b/c", "a/**/c", "a/**/b/c", "**", "a**", "[ab]", "[!a]", "[^a]", "[a-c].py", "[]]", "[]-b]", "x[[]y", r"\*",
    r"a\b", r"\#a", r"\!a", "a ", r"a\ ", "b.py", ".a", ".*", "*/b", "*/*", "a.b.c", "**/*.py", "a/**/", "é*",
]  # fmt: skip
PATHS = [
    "a", "b", "c", "a/b", "a/b/c", "a/b/c/d", "b/a", "c/a/b", "abc", "aXc", "a.py", "b.py", "c.py", "a/b.py",
    "a/b/c.py", "b/a.py", ".a", ".a/b", "x/.a", "*", "]", "-", "x[y", "#a", "!a", "a ", "a.b.c", "ab", "élan",
    "a/x/y/c", "d/b/c",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="git is the judge")
def test_lines_mean_what_git_takes_them_for(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    differing = []
    for pattern in PATTERNS:
        (tmp_path / ".gitignore").write_text(pattern + "\n")
        line = ["git", "-c", "core.quotepath=off", "check-ignore", "--no-index", "--stdin", "-z"]
        judged = subprocess.run(line, cwd=tmp_path, input="\0".join(PATHS), capture_output=True, text=True, check=False)
        expected = set(judged.stdout.split("\0")) - {""}
        found = {path for path in PATHS if Line(pattern).covers(path)}
        if found != expected:
            differing.append((pattern, found ^ expected))
    assert differing == []


@pytest.mark.parametrize(
    ("exclude", "path"),
    [
        ("data/", "data/x.py"),
        ("./data", "data/x.py"),
        ("data/*", "data/x.py"),
        ("{folder}/data", "data/x.py"),
        ("{folder}/data/", "data/x.py"),
        ("data", "sub/data/x.py"),
        (".cache", ".cache/x.py"),
        ("*_test.py", "sub/a_test.py"),
    ],
)
def test_what_is_excluded_does_not_count(exclude: str, path: str, tmp_path: Path) -> None:
    assert not counts(path, tmp_path, exclude=[exclude.format(folder=tmp_path)])
    assert counts("other.py", tmp_path, exclude=[exclude.format(folder=tmp_path)])


def counts(path: str, folder: Path, *, include: list[str] | None = None, exclude: list[str] | None = None) -> bool:
    (rules,) = rules_of([str(folder)], include or [], exclude or [])
    only_named = False
    for number in range(1, path.count("/") + 1):
        above = "/".join(path.split("/")[:number])
        if not rules.enters(above):
            return False
        only_named = only_named or rules.is_only_named(above)
    return rules.wants(path, only_named=only_named)


@pytest.mark.parametrize(
    ("path", "include", "exclude", "expected"),
    [
        ("main.py", [], [], True),
        ("settings.toml", [], [], False),
        ("query.sql", ["*.sql"], [], True),
        ("query.sql", [".sql"], [], True),
        ("page.tmplx", ["tmplx"], [], True),
        ("tmplx", ["tmplx"], [], True),
        ("templates/page.html", ["templates"], [], True),
        ("templates/page.html", ["templates/"], [], True),
        (".env", [".env"], [], True),
        ("sub/.env", [".env"], [], True),
        (".env", ["*.env"], [], False),
        (".env", [".e*"], [], True),
        (".git/config", ["config"], [], False),
        (".github/flow.yml", [".github/*.yml"], [], True),
        ("build/schema.json", ["build/schema.json"], [], True),
        ("build/schema.json", ["build/*.json"], [], True),
        ("build/schema.json", ["*.json"], [], False),
        ("build/other.json", ["*.json", "build/schema.json"], [], False),
        ("build/lib/main.py", ["build/schema.json"], [], False),
        ("build/lib/main.py", [], ["!build/"], True),
        ("build/lib/main.py", ["build"], [], True),
        ("node_modules/x/index.js", ["*.js"], [], False),
        ("site-packages/x.py", [], [], False),
        ("query.sql", ["*.sql"], ["query.sql"], False),
        ("data/query.sql", ["*.sql"], ["data/"], False),
        ("data/keep.py", [], ["data/*", "!keep.py"], True),
        ("data/drop.py", [], ["data/*", "!keep.py"], False),
        ("one.sql", ["*.sql", "!one.sql"], [], False),
        ("two.sql", ["*.sql", "!one.sql"], [], True),
        (".hidden.py", [], [], False),
        (".hidden.py", [".hidden.py"], [], True),
        ("main.py~", ["*"], [], False),
        ("anything", ["*"], [], True),
    ],
)
def test_what_is_named_beats_what_is_excluded_by_default(
    path: str, include: list[str], exclude: list[str], expected: bool, tmp_path: Path
) -> None:
    assert counts(path, tmp_path, include=include, exclude=exclude) == expected


@pytest.mark.parametrize("option", ["reload_include", "reload_exclude"])
@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "empty"), ("  ", "empty"), ("# no", "comment"), ("/", "folder itself"), (".", "nowhere"),
        ("./", "itself"), ("../data", "leads out"), ("a/../b", "leads out"), ("a/[bc", "without its ]"),
        ("a\\", "backslash"), ("/usr/lib", "outside"), ("{folder}", "folder itself"), ("!", "folder itself"),
    ],
)  # fmt: skip
def test_pattern_that_can_never_match_is_an_error(option: str, pattern: str, why: str, tmp_path: Path) -> None:
    patterns = [pattern.format(folder=tmp_path)]
    include, exclude = (patterns, []) if option == "reload_include" else ([], patterns)
    with pytest.raises(ConfigError, match=option) as caught:
        rules_of([str(tmp_path)], include, exclude)
    assert why in str(caught.value)
    assert "can never match" in str(caught.value)


def test_file_that_is_included_and_excluded_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data/x\.sql.* can never match: reload_exclude has it"):
        rules_of([str(tmp_path)], ["data/x.sql"], ["data/"])


def test_absolute_path_is_of_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    one, two = rules_of(folders, [], [f"{folders[0]}/data"])
    assert [one.enters("data"), two.enters("data")] == [False, True]
