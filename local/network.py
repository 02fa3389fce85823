"""The network of the machines: each has only `lo`, and what crosses its border crosses it here.

From outside, `ADDRESS:8888` on the host leads to `ADDRESS:8888` inside the machine, and the connection inside
comes from the caller's own address, so that a server in the machine sees who calls. From inside, chosen
addresses lead to the host. A machine that is down refuses: its address stays bound on the host, nobody
listens on it. (On EC2 the same caller would wait for a time-out, since nothing answers for a stopped
instance.) A machine that is up with nothing listening on the port resets the connection right after it was
accepted; EC2 would refuse it.

One thread moves all bytes of all machines. It may enter a machine's network namespace to make a socket, and
stays out of it otherwise: a socket belongs for ever to the namespace that it was made in
(network_namespaces(7)).
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import queue
import resource
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, TypeVar

from local.errors import NetworkError

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h; Python 3.11 has no name for it
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFNETMASK: Final = 0x891C
_IFF_UP: Final = 1

_CHUNK: Final = 64 * 1024
_MAX_BUFFER: Final = 4 * _CHUNK
_BACKLOG: Final = 1024
_ACCEPT_BATCH: Final = 64
_OUT_OF_FILES_PAUSE: Final = 0.1
_CALL_TIMEOUT: Final = 30.0
_SAFE_SELECT_FILES: Final = 65536

_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise NetworkError(f"Cannot enter a machine's network namespace: {os.strerror(number)}.")


class Namespace:
    """A network namespace with `lo` up and 169.254.169.254/32 on it, held open by a file descriptor.

    It exists before the machine that lives in it, so that what the machine asks during its boot is answered.
    """

    def __init__(self) -> None:
        made: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
        # unshare(2) moves the calling thread for good, so the thread is thrown away.
        thread = threading.Thread(target=_make_namespace, args=(made,), name="nod-netns", daemon=True)
        thread.start()
        result = made.get()
        thread.join()
        if isinstance(result, Exception):
            raise NetworkError(f"Cannot make a network namespace: {result}.") from result
        self.fd = result

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _make_namespace(made: "queue.SimpleQueue[int | Exception]") -> None:
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            made.put(OSError(number, os.strerror(number)))
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            _interface_up(control, b"lo")
            _interface_address(control, b"lo:0", "169.254.169.254", "255.255.255.255")
        made.put(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        made.put(error)


def _interface_up(control: socket.socket, name: bytes) -> None:
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
    (flags,) = struct.unpack_from("H", answer, 16)
    fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags | _IFF_UP))


def _interface_address(control: socket.socket, name: bytes, address: str, mask: str) -> None:
    for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, mask)):
        packed = struct.pack("16sHH4s16x", name, socket.AF_INET, 0, socket.inet_aton(value))
        fcntl.ioctl(control, request, packed)


class _End:
    """One of the two sockets of a connection, and what waits to be sent on it."""

    __slots__ = ("connecting", "eof", "events", "finished", "pending", "sock")

    def __init__(self, sock: socket.socket, *, connecting: bool = False) -> None:
        self.sock = sock
        self.pending = bytearray()
        self.connecting = connecting
        self.eof = False  # the other side will send no more
        self.finished = False  # we have told it that we will send no more
        self.events = 0


class _Link:
    """A connection that crosses the border: two sockets and the bytes between them."""

    __slots__ = ("ends", "owner")

    def __init__(self, near: _End, far: _End, owner: "_Listener") -> None:
        self.ends = (near, far)
        self.owner = owner

    def other(self, end: _End) -> _End:
        return self.ends[1] if end is self.ends[0] else self.ends[0]


class _Listener:
    """A listening socket and how to make the far end for whoever is accepted."""

    def __init__(self, sock: socket.socket, connect: Callable[[str], socket.socket | None]) -> None:
        self.sock = sock
        self.connect = connect
        self.links: set[_Link] = set()
        self.open = True


class Network:
    """Moves the bytes of all machines in one thread of its own."""

    def __init__(self) -> None:
        self._allow_many_files()
        self._selector = selectors.DefaultSelector()
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._paused: list[tuple[float, _Listener]] = []
        self._closing = False
        self._home = -1
        self._thread = threading.Thread(target=self._serve, name="nod-network", daemon=True)
        self._thread.start()

    @staticmethod
    def _allow_many_files() -> None:
        # Each connection takes two descriptors, and the usual soft limit of 1024 is only for users of
        # select(2).
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _SAFE_SELECT_FILES if hard == resource.RLIM_INFINITY else min(hard, _SAFE_SELECT_FILES)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    # What others call, from any thread.

    def door(self, address: str, port: int) -> "Door":
        """Binds ADDRESS:PORT on the host; connections are refused until the door is opened.

        Raises NetworkError when the address is taken.
        """
        return Door(self, address, port)

    def outlet(self, namespace: Namespace, inside: tuple[str, int], outside: tuple[str, int]) -> "Outlet":
        """Makes `inside` of the namespace lead to `outside` on the host."""
        return Outlet(self, namespace, inside, outside)

    def listen(self, namespace: Namespace, address: str, port: int) -> socket.socket:
        """A socket that listens inside the namespace; the caller serves and closes it."""

        def make() -> socket.socket:
            sock = self.socket_in(namespace)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, port))
                sock.listen(_BACKLOG)
            except OSError:
                sock.close()
                raise
            return sock

        return self.call(make)

    def close(self) -> None:
        """Ends the thread and every connection."""
        if not self._thread.is_alive():
            return

        def stop() -> None:
            self._closing = True

        self._post(stop)
        self._thread.join()

    def call(self, function: Callable[[], T]) -> T:
        """Runs a function in the network's thread and hands back its result."""
        if threading.current_thread() is self._thread:
            return function()
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except (OSError, NetworkError) as error:
                future.set_exception(error)

        self._post(run)
        try:
            return future.result(timeout=_CALL_TIMEOUT)
        except TimeoutError as error:
            raise NetworkError("The network of the machines does not answer.") from error

    # Below: only in the network's own thread.

    def socket_in(self, namespace: Namespace) -> socket.socket:
        """A TCP socket that belongs to the namespace."""
        _setns(namespace.fd)
        try:
            return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        finally:
            _setns(self._home)

    def add(self, listener: _Listener) -> None:
        self._selector.register(listener.sock, selectors.EVENT_READ, listener)

    def remove(self, listener: _Listener) -> None:
        """Stops accepting and resets the listener's connections; the socket itself stays the caller's."""
        listener.open = False
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(listener.sock)
        self._paused = [(at, paused) for at, paused in self._paused if paused is not listener]
        for link in list(listener.links):
            self._reset(link)

    def _post(self, function: Callable[[], None]) -> None:
        self._calls.put(function)
        with contextlib.suppress(BlockingIOError, OSError):
            self._wake_write.send(b"\0")

    def _serve(self) -> None:
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while not self._closing:
                for key, events in self._selector.select(self._pause_left()):
                    if key.data is None:
                        self._answer_calls()
                    elif isinstance(key.data, _Listener):
                        self._accept(key.data)
                    else:
                        link, end = key.data
                        self._ready(link, end, events)
                self._resume_accepting()
        finally:
            self._shut_all()

    def _shut_all(self) -> None:
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Listener):
                self.remove(key.data)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
        os.close(self._home)

    def _answer_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_read.recv(4096):
                pass
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()

    def _pause_left(self) -> float | None:
        if not self._paused:
            return None
        return max(0.0, min(at for at, _ in self._paused) - time.monotonic())

    def _resume_accepting(self) -> None:
        if not self._paused:
            return
        now = time.monotonic()
        due = [listener for at, listener in self._paused if at <= now]
        self._paused = [(at, listener) for at, listener in self._paused if at > now]
        for listener in due:
            self.add(listener)

    def _accept(self, listener: _Listener) -> None:
        for _ in range(_ACCEPT_BATCH):
            if not listener.open:
                return
            try:
                sock, (host, _port) = listener.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # The connection stays in the backlog; without a pause this loop would spin on it.
                    self._selector.unregister(listener.sock)
                    self._paused.append((time.monotonic() + _OUT_OF_FILES_PAUSE, listener))
                return
            sock.setblocking(False)
            try:
                far = listener.connect(host)
            except (OSError, NetworkError):
                far = None
            if far is None:
                _reset_socket(sock)
                continue
            for each in (sock, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(_End(sock), _End(far, connecting=True), listener)
            listener.links.add(link)
            for end in link.ends:
                self._watch(link, end)

    def _watch(self, link: _Link, end: _End) -> None:
        other = link.other(end)
        events = 0
        if end.connecting or end.pending:
            events |= selectors.EVENT_WRITE
        if not end.eof and not end.connecting and not other.connecting and len(other.pending) < _MAX_BUFFER:
            events |= selectors.EVENT_READ
        if events == end.events:
            return
        if end.events == 0:
            self._selector.register(end.sock, events, (link, end))
        elif events == 0:
            self._selector.unregister(end.sock)
        else:
            self._selector.modify(end.sock, events, (link, end))
        end.events = events

    def _ready(self, link: _Link, end: _End, events: int) -> None:
        if link not in link.owner.links:
            return  # reset earlier in this same round
        other = link.other(end)
        try:
            if end.connecting:
                number = end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    self._reset(link)
                    return
                end.connecting = False
            elif events & selectors.EVENT_WRITE:
                self._flush(end, other)
            if events & selectors.EVENT_READ and not end.eof:
                self._pull(end, other)
        except BlockingIOError:
            pass
        except OSError:
            self._reset(link)
            return
        if all(each.eof and each.finished for each in link.ends):
            self._drop(link)
            return
        self._watch(link, end)
        self._watch(link, other)

    def _pull(self, end: _End, other: _End) -> None:
        data = end.sock.recv(_CHUNK)
        if not data:
            end.eof = True
        else:
            other.pending += data
        self._flush(other, end)

    @staticmethod
    def _flush(end: _End, source: _End) -> None:
        """Sends what waits; passes the end of the stream on once all before it is sent."""
        if end.pending:
            try:
                sent = end.sock.send(end.pending)
            except BlockingIOError:
                return
            del end.pending[:sent]
        if source.eof and not end.pending and not end.finished:
            end.finished = True
            end.sock.shutdown(socket.SHUT_WR)

    def _drop(self, link: _Link) -> None:
        link.owner.links.discard(link)
        for end in link.ends:
            if end.events:
                self._selector.unregister(end.sock)
                end.events = 0
            end.sock.close()

    def _reset(self, link: _Link) -> None:
        for end in link.ends:
            with contextlib.suppress(OSError):
                end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(link)


def _reset_socket(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def claim_of(address: str) -> bytes:
    """The name (an abstract Unix socket, gone with its process) by which local clouds see whose an address is.

    While a machine is off its door is bound and does not listen, and Linux lets anyone else listen there who sets
    SO_REUSEADDR.
    """
    return f"\0nod-address-{address}".encode()


class Door:
    """A machine's address on the host. Bound for as long as the machine exists; listens while the machine is
    up.
    """

    def __init__(self, network: Network, address: str, port: int) -> None:
        self._network = network
        self._address = address
        self._port = port
        self._listener: _Listener | None = None
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._claim.bind(claim_of(address))
            self._sock.bind((address, port))
        except OSError as error:
            self._claim.close()
            self._sock.close()
            raise NetworkError(f"Cannot use {address}:{port} for a machine: {error.strerror}.") from error

    def open(self, namespace: Namespace) -> None:
        """From now on connections lead into the namespace."""

        def connect(caller: str) -> socket.socket | None:
            if not caller.startswith("127."):
                return None  # inside, no address but these exists to come from
            sock = self._network.socket_in(namespace)
            try:
                # Without this option each connection would hold one of 28,000 ports whatever its destination.
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((caller, 0))
                _start_connect(sock, (self._address, self._port))
            except OSError:
                sock.close()
                raise
            return sock

        def start() -> None:
            self._sock.listen(_BACKLOG)
            self._listener = _Listener(self._sock, connect)
            self._network.add(self._listener)

        self._network.call(start)

    def shut(self) -> None:
        """Connections are reset, and new ones refused."""

        def stop() -> None:
            if self._listener is not None:
                self._network.remove(self._listener)
                self._listener = None
                with contextlib.suppress(OSError):
                    # On Linux this ends the listening and keeps the address.
                    self._sock.shutdown(socket.SHUT_RDWR)

        self._network.call(stop)

    def close(self) -> None:
        self.shut()
        self._sock.close()
        self._claim.close()


class Outlet:
    """An address inside a namespace that leads to one on the host."""

    def __init__(
        self, network: Network, namespace: Namespace, inside: tuple[str, int], outside: tuple[str, int]
    ) -> None:
        self._network = network
        self._sock = network.listen(namespace, *inside)

        def connect(_caller: str) -> socket.socket:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                _start_connect(sock, outside)
            except OSError:
                sock.close()
                raise
            return sock

        self._listener = _Listener(self._sock, connect)
        network.call(lambda: network.add(self._listener))

    def close(self) -> None:
        self._network.call(lambda: self._network.remove(self._listener))
        self._sock.close()


def _start_connect(sock: socket.socket, address: tuple[str, int]) -> None:
    number = sock.connect_ex(address)
    if number not in (0, errno.EINPROGRESS):
        raise OSError(number, os.strerror(number))
