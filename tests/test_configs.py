"""Comparing stored configurations."""

from dataclasses import dataclass, field

from ultron_cli.configs import LATER, differences, to_dict


def test_a_switch_that_a_file_of_before_does_not_have_was_off() -> None:
    before = {"model": {"name": "gem", "settings": {"p": 3.0}}}
    now = {"model": {"name": "gem", "settings": {"p": 3.0, "beta": False, "gamma": None}}}
    assert differences(before, now) == [] == differences(now, before)
    now["model"]["settings"]["beta"] = True
    assert differences(before, now) == ["model.settings.beta (stored None, asked True)"]
    assert differences({"p": 0}, {}) == ["p (stored 0, asked None)"]


@dataclass(frozen=True)
class Inner:
    before: int | None = None
    since: int | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class Outer:
    inner: Inner
    since: int | None = field(default=None, metadata=LATER)


def test_what_came_with_a_later_version_is_stored_where_it_is_set() -> None:
    assert to_dict(Outer(Inner())) == {"inner": {"before": None}}
    assert to_dict(Outer(Inner(since=2), since=1)) == {"inner": {"before": None, "since": 2}, "since": 1}
