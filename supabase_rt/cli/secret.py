"""The user's own signing secret, kept in a file so that the keys of yesterday are good today.

Nothing of a file is believed before it is known whose it is: it may have been put there by somebody
who wants to know the secret, or be a link to a file that must not be touched.
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
# Windows has none of these, and no owners and modes: there the user's profile is closed to others.
NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
IS_LINK = (errno.ELOOP, errno.EMLINK)
POSIX = sys.platform != "win32"


@dataclasses.dataclass(frozen=True)
class KeptSecret:
    """A secret; ``problem`` says why it is one for this run only, None where it is kept."""

    text: str = dataclasses.field(repr=False)
    problem: str | None = None


class _NotTrusted(Exception):
    """The file or folder is not as it has to be; the message says how."""


def state_folder(environment: Mapping[str, str]) -> Path:
    """The folder of this program in the user's state directory; ``OSError`` where there is none."""
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
    """The secret of this user: the kept one, else ``new``, kept from now on where that can be."""
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
        # Another process may have been first, and its secret counts.
        return _read(folder, path)


@contextlib.contextmanager
def _opened_folder(folder: Path) -> Iterator[int | None]:
    """A descriptor of the folder: what happens to its name meanwhile does not matter."""
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
                raise _NotTrusted(f"others may write into {folder} (chmod 700 would mend it)")
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
    """Create the file as a whole: nobody ever finds it empty, and one that is there stays.

    It is written under a name that nobody knows, and gets its own by a link, which fails where
    the name is taken. A reader between these sees no file.
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
        # A file system without hard links: another process might find the file half written.
        _write(folder, path, text)


def _write(folder: int | None, path: Path, text: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK
    opened = os.open(_at(folder, path), flags, PRIVATE, dir_fd=folder)
    with open(opened, "wb") as file:
        if POSIX:
            # Whatever the umask left of it.
            os.fchmod(opened, PRIVATE)
        file.write(f"{text}\n".encode())
        file.flush()
        os.fsync(opened)
