"""The peers, each in an environment of its own under ``benchmarks/.peers``."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .work import Work

__all__ = [
    "BARE",
    "CLIENTS",
    "HERE",
    "OURS",
    "PYTHON",
    "Client",
    "Peers",
    "environment",
    "install",
]

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
PYTHON = PEERS / "py" / "bin" / "python"
INSTALL_TIMEOUT = 300.0

PIP = ("realtime", "orjson", "msgspec", "aiohttp")
NPM = ("@supabase/realtime-js", "phoenix", "ws")
OURS, BARE = "supabase_rt", "bare"


@dataclasses.dataclass(frozen=True)
class Client:
    """One column of the table.

    ``share``: how much of the work a slow client gets. ``sending_share``: the same for sending;
    see docs/performance.md for why realtime-js gets less of that.
    """

    name: str
    command: tuple[str, ...]
    needs: str
    share: float = 1.0
    sending_share: float = 1.0
    binary: bool = True
    asynchronous: bool = True
    sends: bool = True
    acks: bool = True
    rejoins: bool = True

    def takes(self, work: Work) -> bool:
        """Returns True if the client can do this work."""
        if self.name == "bare-envelope":
            return work.read == "nothing" and work.event != "presence"
        return (self.binary or not work.binary) and (self.asynchronous or not work.asynchronous)


def _module(python: str, name: str) -> tuple[str, ...]:
    return (python, "-m", f"benchmarks.clients.{name}")


def _script(name: str) -> tuple[str, ...]:
    return ("node", "--expose-gc", str(HERE / "clients" / "js" / f"{name}.mjs"))


CLIENTS = (
    Client(BARE, _module(str(PYTHON), "bare"), "aiohttp", rejoins=False),
    Client(
        "bare-envelope",
        _module(str(PYTHON), "bare"),
        "aiohttp",
        sends=False,
        acks=False,
        rejoins=False,
    ),
    Client(OURS, _module(sys.executable, "ours"), OURS),
    Client("realtime-js", _script("realtime"), "@supabase/realtime-js", sending_share=0.4),
    Client("phoenix", _script("phoenix"), "phoenix", binary=False, sends=False),
    Client(
        "PyPI realtime",
        _module(str(PYTHON), "peer_realtime"),
        "realtime",
        share=0.04,
        sending_share=0.04,
        binary=False,
        asynchronous=False,
    ),
)


@dataclasses.dataclass
class Peers:
    """The installed packages with their versions, and a reason for each missing one."""

    versions: dict[str, str]
    missing: dict[str, str]

    def clients(self) -> list[Client]:
        """Returns the clients whose packages are installed."""
        return [client for client in CLIENTS if client.needs in self.versions]


def install() -> Peers:
    """Installs missing packages and reads the versions; needs the network the first time."""
    peers = Peers({}, {})
    PEERS.mkdir(exist_ok=True)
    _look_python(peers, _install_python())
    _look_node(peers, _install_node())
    sys.path.insert(0, str(HERE.parent))
    from supabase_rt import __version__

    peers.versions[OURS] = __version__
    return peers


def environment() -> dict[str, str]:
    """Returns the environment in which clients find the benchmark and their packages.

    Bytecode is always written. Installed packages have it, and without it this checkout would be
    compiled at each import.
    """
    found = {**os.environ, "PYTHONPATH": str(HERE.parent), "PEERS": str(PEERS)}
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def _run(*command: str, cwd: Path | None = None) -> str:
    """Runs a command to its end; returns its error text, or an empty text."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{command[0]}: {exc}"
    if not done.returncode:
        return ""
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return said[-1] if said else f"{command[0]} ended with {done.returncode}"


def _install_python() -> str:
    stamp = PEERS / "py" / ".installed"
    if stamp.exists() and stamp.read_text() == sys.version:
        return ""
    print("installing the Python peers (once; needs the network)", flush=True)
    problem = _run(sys.executable, "-m", "venv", "--clear", str(PEERS / "py"))
    # One by one, because one failed installation must not prevent the others.
    for name in () if problem else reversed(PIP):
        problem = _run(str(PYTHON), "-m", "pip", "install", "--quiet", name) or problem
    if not problem:
        stamp.write_text(sys.version)
    return problem


def _install_node() -> str:
    if shutil.which("npm") is None or shutil.which("node") is None:
        return "node and npm are not installed"
    folder = PEERS / "js"
    if (folder / ".installed").exists():
        return ""
    print("installing the JavaScript peers (once; needs the network)", flush=True)
    folder.mkdir(exist_ok=True)
    (folder / "package.json").write_text('{"private": true}\n')
    problem = ""
    for name in reversed(NPM):
        command = ("npm", "install", "--silent", "--no-audit", "--no-fund", name)
        problem = _run(*command, cwd=folder) or problem
    if not problem:
        (folder / ".installed").touch()
    return problem


def _look_python(peers: Peers, problem: str) -> None:
    asks = "import importlib.metadata as m,sys; print(m.version(sys.argv[1]))"
    for name in PIP:
        try:
            done = subprocess.run(
                [str(PYTHON), "-c", asks, name], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            peers.missing[name] = problem or "not installed"
        else:
            peers.versions[name] = done.stdout.strip()


def _look_node(peers: Peers, problem: str) -> None:
    for name in NPM:
        found = PEERS / "js" / "node_modules" / name / "package.json"
        if found.exists() and shutil.which("node"):
            peers.versions[name] = json.loads(found.read_text())["version"]
        else:
            peers.missing[name] = problem or "not installed"
    if shutil.which("node"):
        done = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False)
        peers.versions["node"] = done.stdout.strip()
