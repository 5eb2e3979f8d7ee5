"""Handlers that remember their arguments."""

from __future__ import annotations

from typing import Any

from supabase_rt import RealtimeClient

from .waiting import until

__all__ = ["ClientEvents", "Recorder", "Statuses"]


class Recorder:
    """A handler of one argument; ``seen`` holds the events in order."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, payload: Any) -> None:
        self.seen.append(payload)

    async def count(self, number: int, timeout: float = 10.0) -> list[Any]:
        """Wait until that many came."""
        await until(lambda: len(self.seen) >= number, timeout)
        return self.seen

    def values(self, key: str = "n") -> list[Any]:
        """Returns one field of the payloads of the received broadcasts."""
        return [event.payload[key] for event in self.seen]


class Statuses:
    """A subscribe callback: statuses and errors in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.errors: list[BaseException | None] = []

    def __call__(self, status: str, error: BaseException | None) -> None:
        self.names.append(str(status))
        self.errors.append(error)

    async def are(self, *names: str, timeout: float = 10.0) -> None:
        """Wait until as many statuses came, and compare them."""
        try:
            await until(lambda: len(self.names) >= len(names), timeout)
        except AssertionError:
            pass
        assert self.names == list(names)


class ClientEvents:
    """Every event of a client: names and arguments in order."""

    ARGUMENTS = (
        ("open", 0),
        ("close", 2),
        ("error", 3),
        ("reconnecting", 3),
        ("reconnected", 1),
        ("heartbeat", 2),
        ("gap", 4),
        ("resumed", 2),
        ("gave_up", 1),
    )

    def __init__(self, client: RealtimeClient) -> None:
        self.seen: list[tuple[str, tuple[Any, ...]]] = []
        for name, _ in self.ARGUMENTS:
            client.on(name, self._listener(name))

    def _listener(self, name: str) -> Any:
        def listen(*args: Any) -> None:
            self.seen.append((name, args))

        return listen

    def names(self) -> list[str]:
        return [name for name, _ in self.seen]

    def of(self, name: str) -> list[tuple[Any, ...]]:
        return [args for found, args in self.seen if found == name]

    @property
    def errors(self) -> list[BaseException]:
        return [args[0] for args in self.of("error")]

    async def some(self, name: str, count: int = 1, timeout: float = 10.0) -> list[tuple[Any, ...]]:
        """Wait for that many events of a name."""
        await until(lambda: len(self.of(name)) >= count, timeout)
        return self.of(name)
