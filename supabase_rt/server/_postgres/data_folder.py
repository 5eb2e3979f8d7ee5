"""The data folder: created for the user that PostgreSQL runs as, and never taken from others.

Root runs PostgreSQL as another user, and gives that user the folder. Each step uses the
descriptor of an open folder and follows no link. So no other folder can be put in its place
meanwhile, and files already in the folder keep their owner.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import DatabaseProblem

__all__ = ["give_away", "take_folder"]


def take_folder(folder: Path, user: Mapping[str, Any]) -> None:
    """Create the folder if it is missing; ``user`` is its owner, empty for this user.

    Raises ``DatabaseProblem``, also for a folder with anything but PostgreSQL's data in it.
    """
    try:
        if user:
            _take_for(folder, user["user"], user["group"])
        else:
            folder.mkdir(parents=True, exist_ok=True)
            _check_contents(folder, os.listdir(folder))
    except NotADirectoryError:
        # The system raises this also for a symbolic link that O_NOFOLLOW refuses.
        linked = any(each.is_symlink() for each in (folder, *folder.parents))
        problem = "a symbolic link has come into its path" if linked else os.strerror(errno.EEXIST)
    except OSError as exc:
        problem = os.strerror(exc.errno or 0)
    else:
        return
    raise DatabaseProblem(f"cannot keep data in {folder}: {problem}; give another folder")


def _check_contents(folder: Path, names: list[str]) -> None:
    if names and "PG_VERSION" not in names:
        raise DatabaseProblem(
            f"{folder} holds something else than PostgreSQL's data; give a new folder"
        )


def _take_for(folder: Path, user: int, group: int) -> None:
    """Give root's empty folder to a user; a folder with data must already belong to the user."""
    with _opened(folder) as found:
        names = os.listdir(found)
        _check_contents(folder, names)
        owner = os.fstat(found).st_uid
        if owner == user:
            return
        if names or owner != os.geteuid():
            raise DatabaseProblem(
                f"{folder} belongs to {_name(owner)}, and PostgreSQL runs as {_name(user)} for "
                f"root; start it as {_name(owner)}, or run chown -R {_name(user)} {folder}"
            )
        os.fchown(found, user, group)
        os.fchmod(found, 0o700)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open an absolute path without following links, creating missing folders."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(folder.anchor, flags)
    try:
        for name in folder.parts[1:]:
            try:
                found = os.open(name, flags, dir_fd=here)
            except FileNotFoundError:
                os.mkdir(name, dir_fd=here)
                found = os.open(name, flags, dir_fd=here)
            os.close(here)
            here = found
        yield here
    finally:
        os.close(here)


def give_away(folder: Path, user: int, group: int) -> None:
    """Give a folder to a user; this process has just created it, closed to others.

    The folder itself comes last, so that nobody else can reach its contents before.
    """
    for _, folders, files, here in os.fwalk(folder, topdown=False):
        for name in (*folders, *files):
            os.chown(name, user, group, dir_fd=here, follow_symlinks=False)
    found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(found, user, group)
    finally:
        os.close(found)


def _name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
