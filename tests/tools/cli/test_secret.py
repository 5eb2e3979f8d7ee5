"""The secret that ``serve`` keeps for its user: created once, and used only if it is safe."""

from __future__ import annotations

import multiprocessing
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supabase_rt.cli import main
from supabase_rt.cli.secret import kept_secret, state_folder
from supabase_rt.server import new_secret
from supabase_rt.server.tokens import Tokens

from .kit import serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes of POSIX")
NOBODY = 65534


def ask(state: Path) -> tuple[str, str | None]:
    found = kept_secret({"XDG_STATE_HOME": str(state)}, new_secret())
    return found.text, found.problem


def file_of(state: Path) -> Path:
    return state / "supabase-rt" / "jwt-secret"


def test_it_is_made_once_and_only_its_user_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        text, problem = ask(tmp_path)
    finally:
        os.umask(before)
    assert problem is None
    assert len(text) > 64
    assert ask(tmp_path) == (text, None)
    file = file_of(tmp_path)
    assert file.read_text() == f"{text}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert list(file.parent.iterdir()) == [file]
    assert ask(tmp_path / "another")[0] != text


def test_a_strict_umask_does_not_lock_its_user_out(tmp_path: Path) -> None:
    tmp_path.joinpath("supabase-rt").mkdir()
    before = os.umask(0o777)
    try:
        text, problem = ask(tmp_path)
    finally:
        os.umask(before)
    assert (problem, ask(tmp_path)) == (None, (text, None))


def _race(state: Path, start: object, found: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    found.put(ask(state))  # type: ignore[attr-defined]


def test_those_that_start_at_once_have_one_secret(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(6), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, start, found)) for _ in range(6)]
    for racer in racers:
        racer.start()
    secrets = {found.get(timeout=60) for _ in racers}
    for racer in racers:
        racer.join()
    assert secrets == {(file_of(tmp_path).read_text().strip(), None)}
    assert len(list(file_of(tmp_path).parent.iterdir())) == 1


def test_a_file_system_without_hard_links_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    text, problem = ask(tmp_path)
    assert (problem, ask(tmp_path)) == (None, (text, None))
    assert stat.S_IMODE(file_of(tmp_path).stat().st_mode) == 0o600
    assert list(file_of(tmp_path).parent.iterdir()) == [file_of(tmp_path)]


def readable(file: Path) -> None:
    file.chmod(0o644)


def readable_by_the_group(file: Path) -> None:
    file.chmod(0o640)


def writable(file: Path) -> None:
    file.chmod(0o602)


def linked(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


def dangling(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent.parent / "made-by-us")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def empty(file: Path) -> None:
    file.write_text("")


def short(file: Path) -> None:
    file.write_text("short")


def large(file: Path) -> None:
    file.write_text("x" * 100_000)


def binary(file: Path) -> None:
    file.write_bytes(b"\xff\x00\x1b" * 20)


def open_folder(file: Path) -> None:
    file.parent.chmod(0o777)


def linked_folder(file: Path) -> None:
    file.parent.rename(file.parent.parent / "moved")
    file.parent.symlink_to("moved")


def a_file_for_a_folder(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (readable, "others may read"),
        (readable_by_the_group, "others may read"),
        (writable, "others may read"),
        (linked, "is a link"),
        (dangling, "is a link"),
        (a_folder, "is not a file"),
        (a_pipe, "is not a file"),
        (empty, "holds no secret"),
        (short, "holds no secret"),
        (large, "holds no secret"),
        (binary, "holds no secret"),
        (open_folder, "others may write into"),
        (linked_folder, "is a link or a file"),
        (a_file_for_a_folder, "supabase-rt"),
    ],
)
def test_what_others_may_have_touched_is_not_trusted(
    tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    first, _ = ask(tmp_path)
    harm(file_of(tmp_path))
    text, problem = ask(tmp_path)
    assert text != first
    assert problem is not None
    assert said in problem
    assert first not in problem
    assert text not in problem
    # A new secret for each run, and no file is written through the link.
    assert ask(tmp_path)[0] != text
    assert not (tmp_path / "made-by-us").exists()


@pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="only root can give a file away"
)
def test_what_belongs_to_another_user_is_not_trusted(tmp_path: Path) -> None:
    first, _ = ask(tmp_path)
    file = file_of(tmp_path)
    for given in (file, file.parent):
        os.chown(given, NOBODY, NOBODY)
        text, problem = ask(tmp_path)
        assert text != first
        assert problem == f"{given} belongs to another user"
        os.chown(given, 0, 0)
    assert ask(tmp_path) == (first, None)


def test_without_a_home_it_is_one_for_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    found = kept_secret({}, "new")
    assert found.text == "new"
    assert found.problem is not None
    assert "Not a directory" in found.problem
    monkeypatch.setenv("HOME", "relative")
    assert kept_secret({}, "new").problem == "this user has no home folder"


def test_the_folder_is_the_one_of_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    if sys.platform == "linux":
        assert state_folder({}) == Path("/home/me/.local/state/supabase-rt")
    # By the specification, a relative path is ignored.
    assert state_folder({"XDG_STATE_HOME": "here"}) == state_folder({})
    assert state_folder({"XDG_STATE_HOME": "/x"}) == Path("/x/supabase-rt")


def test_the_secret_is_not_shown_by_accident() -> None:
    assert "srt_" not in repr(kept_secret({"XDG_STATE_HOME": "/dev/null"}, new_secret()))


# -- what serve does with it ---------------------------------------------------------------


async def test_the_keys_of_yesterday_are_good_today(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path), "SUPABASE_JWT_SECRET": ""}
    signatures = []
    for _ in range(2):
        async with serving(**state) as server:
            assert not any("careful" in line for line in server.lines)
            signatures.append(server.shown["anon key"])
            await server.end()
    secret = file_of(tmp_path).read_text().strip()
    for key in signatures:
        assert Tokens(secret).verify(key, 0).role == "anon"


async def test_where_the_secret_cannot_be_kept_serve_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = {"XDG_STATE_HOME": str(tmp_path / "file"), "SUPABASE_JWT_SECRET": ""}
    async with serving(**state) as server:
        assert server.lines[0].startswith("careful: the keys are good for this run only: ")
        assert "Not a directory" in server.lines[0]


async def test_a_secret_that_was_given_is_kept_nowhere(tmp_path: Path) -> None:
    given = "a-secret-of-our-own-with-40-characters!!"
    async with serving(SUPABASE_JWT_SECRET=given, XDG_STATE_HOME=str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []


def test_serve_refuses_what_is_no_name_and_no_origin(capsys: pytest.CaptureFixture[str]) -> None:
    for word, said in (
        ("--allow-host=http://x", "allow_hosts has names"),
        ("--allow-origin=x", "allow_origins has origins"),
    ):
        with pytest.raises(SystemExit) as ended:
            sys.exit(main(["serve", word, "--jwt-secret=" + "x" * 40]))
        assert ended.value.code == 1
        assert said in capsys.readouterr().err
