"""The pool of public addresses."""

import socket

from local.aws.addresses import PORT, Addresses


def test_an_address_given_back_is_the_last_to_be_given_again() -> None:
    pool = Addresses()
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second not in {None, first}
    pool.give_back(first)
    assert pool.take() not in {None, first, second}


def test_an_address_in_use_by_somebody_else_is_passed_over() -> None:
    taken = Addresses().take()
    assert taken is not None
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((taken, PORT))
        other.listen()
        assert Addresses().take() not in {None, taken}


def test_a_pool_has_an_end() -> None:
    pool = Addresses()
    pool._free.clear()
    assert pool.take() is None
