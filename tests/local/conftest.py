"""What the tests of the local cloud share: the machine image, the stand-in installer, and machines of their own."""

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.image import cache_folder, ensure_image
from local.installer import Installer, ensure_installer
from local.machines import Machines
from tests.local.lives import OTHER, post, wait
from tests.local.town import DELAYS, Town, as_before, opened


@pytest.fixture(scope="session")
def cache() -> Path:
    """The cache of the product itself, so that tests find what a demo has made and the other way round."""
    if os.geteuid() != 0:
        pytest.skip("machines need root")
    return cache_folder(os.environ)


@pytest.fixture(scope="session")
def image(cache: Path) -> Path:
    return ensure_image(cache, print)


@pytest.fixture(scope="session")
def installer(cache: Path, image: Path) -> Installer:
    return ensure_installer(cache, image, print)


@pytest.fixture(scope="session")
def new_address() -> Callable[[], str]:
    """Loopback addresses that nothing uses: beside those of a local cloud, and of other tests at the same time."""

    def find() -> str:
        while True:
            address = f"127.{100 + secrets.randbelow(100)}.{secrets.randbelow(256)}.{2 + secrets.randbelow(250)}"
            with socket.socket() as sock:
                try:
                    sock.bind((address, 8888))
                except OSError:
                    continue
            return address

    return find


@pytest.fixture(scope="session")
def aws_port() -> Iterator[int]:
    """A port of 127.0.0.1 that is held, so that nobody else gets it, and free to listen on."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.fixture(scope="module")
def machines(image: Path, aws_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """The machines of one test module, all gone after it."""
    made = Machines(tmp_path_factory.mktemp("cloud"), image, aws_port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The town of one test module."""
    with opened(tmp_path_factory.mktemp("cloud")) as made:
        yield made


@pytest.fixture
def clean(town: Town) -> Iterator[None]:
    """After the test the town is as before it."""
    yield
    town.cloud.slow_pending(DELAYS.pending)
    town.cloud.without_addresses(False)
    as_before(town)


@pytest.fixture
def broken(town: Town, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function of ours that fails at every call."""

    def fail(event: Any, context: Any) -> None:
        raise RuntimeError("broken for this test")

    return lambda name: monkeypatch.setitem(town.cloud.lambdas._handlers, f"nod-local-{name}", fail)


@pytest.fixture
def notebook(town: Town) -> str:
    """A notebook that is ready, and whose machine says so at every boot."""
    town.machines.on_boot = lambda machine: town.beat(machine, certificate_sha256={"S": OTHER})
    made = town.launch(name="mine")
    town.person.wait(made, "ready", seconds=180)
    town.settle()
    return made


@pytest.fixture
def stopped(town: Town, notebook: str) -> str:
    """The same, once it is stopped."""
    assert post(town, notebook, "stop") == 202
    wait(town, notebook, "stopped")
    return notebook
