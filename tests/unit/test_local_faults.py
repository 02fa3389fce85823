"""Faults: names, subjects, and nothing changed by a wrong name."""

import pytest

from local.faults import Faults, UnknownFaultError


def test_a_fault_without_subject_concerns_all() -> None:
    faults = Faults(["command_fails"])
    assert faults.active("command_fails")
    assert faults.active("command_fails", "configure-tls")
    assert not faults.active("command_twice", "configure-tls")


def test_a_fault_with_a_subject_concerns_that_one() -> None:
    faults = Faults(["command_fails:configure-tls"])
    assert not faults.active("command_fails")
    assert faults.active("command_fails", "configure-tls")
    assert not faults.active("command_fails", "install-anaconda")


@pytest.mark.parametrize("name", ["", "no_such", "no_such:x", "command_fails "])
def test_an_unknown_name_is_an_error_that_lists_what_there_is(name: str) -> None:
    with pytest.raises(UnknownFaultError, match="no_capacity"):
        Faults([name])


def test_a_change_is_whole_or_not_at_all() -> None:
    faults = Faults(["no_capacity"])
    with pytest.raises(UnknownFaultError):
        faults.change({"no_capacity": False, "no_such": True})
    assert faults.names() == ["no_capacity"]
    faults.change({"no_capacity": False, "throttling": True})
    assert faults.names() == ["throttling"]
    faults.clear()
    assert faults.names() == []
