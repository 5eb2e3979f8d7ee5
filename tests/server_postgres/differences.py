"""The differences between our server and the recorded one, each with its reason.

The comparison (``player.py``) ignores what ``RULES`` names, and nothing else. All other
differences are listed here only. ``python -m tests.server_postgres.table`` writes all of it into
docs/local-server-fidelity.md. An entry that is not needed fails its test.
"""

from __future__ import annotations

import dataclasses

__all__ = ["DIFFERENCES", "RULES", "UNLIKE", "Difference"]

Kind = tuple[str, str, str]
"""Socket, topic and event of a frame."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """``never``: recorded frames that our server does not send, by their line in the file (from 0).
    ``more``: frames of our server that were not recorded, each as often as it is listed.
    ``headers``: headers of HTTP answers that are not compared.
    """

    recordings: tuple[str, ...]
    real: str
    ours: str
    why: str
    never: tuple[int, ...] = ()
    more: tuple[Kind, ...] = ()
    headers: tuple[str, ...] = ()


DIFFERENCES = (
    Difference(
        ("gateway", "http_broadcast", "jwt_errors"),
        "Calls itself `Cowboy` in the header `Server`.",
        "Says what it is.",
        "It is another program.",
        headers=("Server",),
    ),
    Difference(
        ("presence",),
        "Some updates tracked within one millisecond are never sent, because the channel is "
        "closed for its presence limit before their diffs are sent.",
        "Sends each update before it handles the next call.",
        "The real tracker runs beside the channel. Tests should not depend on this race.",
        more=(("C", "realtime:pres2", "presence_diff"),) * 2,
    ),
    Difference(
        ("presence",),
        "Calls that already waited in a channel when it was closed get no answer.",
        "Answers them with `unmatched topic`, as the real server does with later ones.",
        "Here a channel has no queue of calls that ends with it.",
        more=(("C", "realtime:pres2", "phx_reply"),) * 2,
    ),
    Difference(
        ("v2_framing",),
        "A client that leaves may still get the diff of its own leaving, after `phx_close` "
        "(recorded once; in `realtime_js` and `presence` it does not).",
        "Never sends it.",
        "This is a race of the real server, and clients have to ignore the diff.",
        never=(52,),
    ),
    Difference(
        ("realtime_js",),
        "The script closed its socket before the answer to its last `phx_leave` came.",
        "The player waits, so the answer and `phx_close` arrive.",
        "The recording caused this, not the server.",
        more=(("A2", "realtime:js", "phx_reply"), ("A2", "realtime:js", "phx_close")),
    ),
)

RULES = {
    "Ids, `phx_ref`s and generated presence keys": "each recorded id stands for one of ours, "
    "always the same one within a recording.",
    "Refs and join refs": "are compared as they are: the recorded client's frames are sent "
    "unchanged.",
    "`commit_timestamp`, `inserted_at`, `Date`, `X-Request-ID`": "their form is compared, not "
    "their value. `since` of a replay counts from our own start.",
    "Order": "is compared among the frames of one channel itself (replies, `system`, "
    "`presence_state`, `phx_close`, ...) and among the broadcasts, the presence diffs and the row "
    "changes of one topic on one socket. The real server does not order these four groups among "
    "each other.",
    "Numbers, texts and spelling": "are compared to the last character; the order of the keys of "
    "an object is not.",
    "Delays": "are off (`REALISTIC` has them). A token of four seconds lives one second.",
    "Tokens": "are made anew, of the same kind: expired, badly signed, without role, ...",
    "What the script did inside the server": "is done with `server.faults`, `stop()` and "
    "`start()`. The event rate is measured at the moment at which the recorded server measured it.",
    "Texts that were cut or left out": "the 4 MB frame of `broadcast` and the 2,400 frames of "
    "`rate_limit` are made anew; so are the requests and rows of `gateway` and `realtime_js`, "
    "where only frames were recorded.",
    "The unknown tenant of `jwt_errors`": "is refused by `faults.refuse(404)`, because every host "
    "name leads to this server's one project.",
}
"""Fields that the comparison ignores, and steps that differ from the recording script."""

UNLIKE = {
    "Long polling": "does not exist.",
    "Projects": "there is one, for every host name. Limits and rates are those of the server.",
    "Keys": "tokens signed with the shared secret (HS256, HS384, HS512) are checked. There is no "
    "JWKS, so a token signed with a private key is refused: its key is unknown.",
    "Web pages": "must come from this machine; an option allows others. The real server asks only "
    "for the key. The same holds for host names that do not belong to this machine.",
    "The right to send": "is tested at the join and at a new token, not at the first "
    "broadcast. A policy that changes in between takes effect at the next join.",
    "Sizes": "are those of the JSON text; the real server measures its internal form of the data.",
    "A stop": "closes every socket with 1012; the real server cuts those without channels.",
    "A broadcast that is marked as JSON but is not JSON, or is a push of kind 0": "does not reach "
    "a client with vsn 1.0.0, which would get a broken frame from the real server.",
    "Timeouts": "are exact: silence after 60 s (the real server: up to 66), a socket "
    "without channels after 10 minutes (0 to 10).",
    "Presence": "diffs are sent one by one and at once; real ones may be merged, and take up to "
    "1.5 s between nodes.",
    "Row changes": "are sent when they are committed; the real server polls every 0.1 to 0.5 s.",
    "Generated columns": "are sent with PostgreSQL 18 and newer, such as the embedded one; the log "
    "of older versions does not contain them.",
    "A filter or a policy that fails at a change": "loses the change for its own channel, which "
    "gets a `system` error and then `Subscribed to PostgreSQL`, because the next changes arrive.",
    "Oversized request lines and headers": "are answered with 400 instead of 414 and 431.",
}
"""Known differences that no recording shows."""
