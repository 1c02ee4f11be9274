import os

import pytest

from pounce.variables import inheritable, set_by_file


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_file_sets_what_is_not_set() -> None:
    os.environ["SET"] = "before"
    set_by_file("SET", "by the file")
    set_by_file("NOT_SET", "by the file")
    assert (os.environ["SET"], os.environ["NOT_SET"]) == ("before", "by the file")


def test_what_a_file_has_set_is_not_inherited() -> None:
    os.environ["SET"] = "before"
    set_by_file("SET", "by the file")
    set_by_file("NOT_SET", "by the file")
    found = inheritable()
    assert found["SET"] == "before"
    assert "NOT_SET" not in found


def test_what_was_changed_after_a_file_had_set_it_is_inherited() -> None:
    set_by_file("CHANGED", "by the file")
    os.environ["CHANGED"] = "by the application"
    assert inheritable()["CHANGED"] == "by the application"
