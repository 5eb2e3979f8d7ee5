"""Hostile peers, in threads: a thread that does not read leaves its socket unread."""

from __future__ import annotations

import base64
import hashlib
import os
import select
import socket
import ssl as ssl_module
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .peers import GUID

__all__ = ["CERTIFICATE", "LINUX", "Foe", "client_tls", "foe", "open_sockets"]

CERTIFICATE = Path(__file__).parent / "localhost.pem"
LINUX = Path("/proc/net/tcp").exists()


class Foe:
    """One connection of a hostile peer, in a thread that ends with the test."""

    def __init__(self, conn: socket.socket, stop: threading.Event) -> None:
        self.conn = conn
        self.stop = stop

    def handshake(self) -> None:
        """Accept the WebSocket handshake as any server does."""
        request = b""
        while b"\r\n\r\n" not in request:
            request += self.recv(65536)
        lines = request.split(b"\r\n")
        key = next(line[19:] for line in lines if line.lower().startswith(b"sec-websocket-key: "))
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.conn.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )

    def frame(self, first: int, data: bytes) -> None:
        """Write a frame with ``first`` as its first byte."""
        size = len(data)
        if size < 126:
            head = bytes([first, size])
        elif size < 65536:
            head = bytes([first, 126]) + size.to_bytes(2, "big")
        else:
            head = bytes([first, 127]) + size.to_bytes(8, "big")
        self.conn.sendall(head + data)

    def recv(self, size: int) -> bytes:
        """Read some bytes; raises ``ConnectionError`` if the client is gone."""
        found = self.conn.recv(size)
        if not found:
            raise ConnectionResetError
        return found

    def flood(self, frame: bytes) -> None:
        """Write the same frame without end, many at once to spare the processor."""
        piece = frame * max(1, 2**16 // len(frame))
        while not self.stop.is_set():
            self.conn.sendall(piece)

    def take(self) -> None:
        """Read everything, drop it, and never answer, not even in TLS."""
        while not self.stop.is_set():
            self.recv(65536)

    def sit(self) -> None:
        """Do nothing, with the connection open."""
        self.stop.wait()


class Attack:
    """The address of a hostile server, and its number of connections so far."""

    def __init__(self, port: int, *, tls: bool) -> None:
        self.port = port
        self.url = f"ws{'s' if tls else ''}://127.0.0.1:{port}/realtime/v1"
        self.connections = 0


@contextmanager
def foe(script: Callable[[Foe], None], *, tls: bool = False, raw: bool = False) -> Iterator[Attack]:
    """Run ``script`` for every connection. With ``raw`` the script gets TLS undecrypted."""
    stop = threading.Event()
    open_ones: list[socket.socket] = []
    threads: list[threading.Thread] = []
    context = ssl_module.SSLContext(ssl_module.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    def serve(conn: socket.socket) -> None:
        try:
            if tls and not raw:
                conn = context.wrap_socket(conn, server_side=True, do_handshake_on_connect=False)
                open_ones.append(conn)
                conn.do_handshake()
            script(Foe(conn, stop))
        except (OSError, ValueError, StopIteration):
            pass
        finally:
            conn.close()

    def accept(listener: socket.socket) -> None:
        while not stop.is_set():
            if not select.select([listener], [], [], 0.05)[0]:
                continue
            conn, _ = listener.accept()
            open_ones.append(conn)
            attack.connections += 1
            thread = threading.Thread(target=serve, args=(conn,), name="foe", daemon=True)
            threads.append(thread)
            thread.start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        attack = Attack(listener.getsockname()[1], tls=tls)
        accepting = threading.Thread(target=accept, args=(listener,), name="foes", daemon=True)
        accepting.start()
        try:
            yield attack
        finally:
            stop.set()
            accepting.join(5)
            for conn in open_ones:
                # A close from this thread would not wake the thread that reads or writes.
                try:
                    conn.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            for thread in threads:
                thread.join(5)
            assert not any(thread.is_alive() for thread in threads)


def client_tls() -> ssl_module.SSLContext:
    """Returns an SSL context that trusts the certificate of these peers."""
    return ssl_module.create_default_context(cafile=CERTIFICATE)


def open_sockets(port: int) -> int:
    """Returns the number of sockets of this process that are connected to ``port``; Linux only.

    A closed socket with unsent data lives on in the kernel with inode 0, and does not count.
    """
    mine = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            mine.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if int(parts[2].rpartition(":")[2], 16) == port and f"socket:[{parts[9]}]" in mine:
            found += 1
    return found
