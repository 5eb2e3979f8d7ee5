"""The user's own signing secret, kept in a file so that keys stay valid at the next start.

The owner and the mode of a file are checked before it is read. Another user may have put the file
there to know the secret. Or it may be a link to a file that must not be changed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["KeptSecret", "kept_secret", "state_folder"]

NAME = "jwt-secret"
LENGTHS = range(32, 4096)
PRIVATE = 0o600
OTHERS = 0o077
WRITABLE = 0o022
# Windows has none of these flags, owners or modes; the user's profile is closed to others there.
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
IS_LINK = (errno.ELOOP, errno.EMLINK)
POSIX = sys.platform != "win32"


@dataclasses.dataclass(frozen=True)
class KeptSecret:
    """A secret; ``problem`` says why it is valid for this run only, None if it is kept."""

    text: str = dataclasses.field(repr=False)
    problem: str | None = None


class _NotTrusted(Exception):
    """A file or folder with the wrong kind, owner or mode; the message says which."""


def state_folder(environment: Mapping[str, str]) -> Path:
    """Returns this program's folder in the user's state directory; ``OSError`` without one."""
    named = environment.get("XDG_STATE_HOME", "")
    if os.path.isabs(named):
        return Path(named) / "supabase-rt"
    if not POSIX:
        return Path(environment.get("LOCALAPPDATA") or _home() / "AppData/Local") / "supabase-rt"
    inside = "Library/Application Support" if sys.platform == "darwin" else ".local/state"
    return _home() / inside / "supabase-rt"


def _home() -> Path:
    try:
        home = Path.home()
    except RuntimeError:
        home = Path()
    if not home.is_absolute():
        raise FileNotFoundError(None, "this user has no home folder")
    return home


def kept_secret(environment: Mapping[str, str], new: str) -> KeptSecret:
    """Returns the user's kept secret; if there is none, ``new`` is kept from now on."""
    path: Path | None = None
    try:
        path = state_folder(environment) / NAME
        return KeptSecret(_read_or_make(path, new))
    except _NotTrusted as exc:
        problem = str(exc)
    except OSError as exc:
        problem = exc.strerror or str(exc)
        problem = problem if path is None else f"{path}: {problem}"
    return KeptSecret(new, problem)


def _read_or_make(path: Path, new: str) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _opened_folder(path.parent) as folder:
        try:
            return _read(folder, path)
        except FileNotFoundError:
            _make(folder, path, new)
        # Another process may have been first; then its secret is the one to use.
        return _read(folder, path)


@contextlib.contextmanager
def _opened_folder(folder: Path) -> Iterator[int | None]:
    """Open the folder, so that a change of its name meanwhile has no effect."""
    if not POSIX:
        yield None
        return
    try:
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)
    except OSError as exc:
        if exc.errno not in (errno.ENOTDIR, *IS_LINK):
            raise
        problem = f"{folder} is a link or a file, not a folder"
    else:
        try:
            found = os.fstat(opened)
            _check_owner(folder, found)
            if stat.S_IMODE(found.st_mode) & WRITABLE:
                raise _NotTrusted(f"others may write into {folder} (run chmod 700)")
            yield opened
        finally:
            os.close(opened)
        return
    raise _NotTrusted(problem)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if POSIX and found.st_uid != os.geteuid():
        raise _NotTrusted(f"{path} belongs to another user")


def _at(folder: int | None, path: Path) -> str:
    return str(path) if folder is None else path.name


def _read(folder: int | None, path: Path) -> str:
    try:
        opened = os.open(_at(folder, path), os.O_RDONLY | NO_LINK | NO_WAIT, dir_fd=folder)
    except OSError as exc:
        if exc.errno not in IS_LINK:
            raise
        problem = f"{path} is a link"
    else:
        try:
            _check_file(path, os.fstat(opened))
            text = os.read(opened, LENGTHS.stop).decode("ascii", "replace").strip()
        finally:
            os.close(opened)
        if len(text) in LENGTHS and text.isascii() and text.isprintable():
            return text
        problem = f"{path} holds no secret; remove it for a new one"
    raise _NotTrusted(problem)


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _NotTrusted(f"{path} is not a file")
    _check_owner(path, found)
    if POSIX and stat.S_IMODE(found.st_mode) & OTHERS:
        raise _NotTrusted(f"others may read {path}; remove it for a new secret")


def _make(folder: int | None, path: Path, text: str) -> None:
    """Create the file in one step: no reader finds it half written, and an existing one stays.

    It is written under a random name. A hard link then gives it its own name, and fails if that
    is taken.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write(folder, draft, text)
    try:
        with contextlib.suppress(FileExistsError):
            _link(folder, draft, path, text)
    finally:
        os.unlink(_at(folder, draft), dir_fd=folder)


def _link(folder: int | None, draft: Path, path: Path, text: str) -> None:
    old, name = _at(folder, draft), _at(folder, path)
    try:
        if folder is None:
            os.link(old, name)
        else:
            os.link(old, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):
        # Without hard links, another process might find the file half written.
        _write(folder, path, text)


def _write(folder: int | None, path: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK
    opened = os.open(_at(folder, path), flags, PRIVATE, dir_fd=folder)
    with open(opened, "wb") as file:
        if POSIX:
            # The umask may have removed bits of the mode.
            os.fchmod(opened, PRIVATE)
        file.write(f"{text}\n".encode())
        file.flush()
        os.fsync(opened)
