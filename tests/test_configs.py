"""Comparing stored configurations."""

from ultron_cli.configs import differences


def test_a_switch_that_a_file_of_before_does_not_have_was_off() -> None:
    before = {"model": {"name": "gem", "settings": {"p": 3.0}}}
    now = {"model": {"name": "gem", "settings": {"p": 3.0, "beta": False, "gamma": None}}}
    assert differences(before, now) == [] == differences(now, before)
    now["model"]["settings"]["beta"] = True
    assert differences(before, now) == ["model.settings.beta (stored None, asked True)"]
    assert differences({"p": 0}, {}) == ["p (stored 0, asked None)"]
