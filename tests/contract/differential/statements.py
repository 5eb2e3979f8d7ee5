"""The statements that the scenarios are to cover. They are the verified ones of the reference on
realtime-js ([V], sections 0 to 3, in order of appearance) and its quirk ledger
(docs/protocol.md#8-presence). Later additions to supabase-js follow.
"""

from __future__ import annotations

__all__ = ["ADDITIONS", "KEPT", "QUIRKS", "VERIFIED"]

_VERIFIED = """\
0.1 postgres_changes_options: sent as given, longer join timeout, refusals tell their reason
0.1 an acknowledged send with persist resolves to the server's error text
1.3.1 a missing apikey throws
1.3.1 the socket URL: parameters in order, log_level, vsn
1.3.1 the HTTP endpoint is derived from the socket's
1.3.1 a heartbeat interval of 0 falls through to another default
1.3.1 reconnectAfterMs gets tries from 1
1.3.3 disconnect keeps channels, errored, and a later connect rejoins them
1.3.3 the first join has ref "6"
1.4.1 the topic is always prefixed, even if it has the prefix
1.4.1 the same topic gives the same channel, its new options ignored
1.4.1 after a removal the topic is free, and the new object another one
1.4.1 subTopic is without one prefix, and used in HTTP requests
1.4.1 options merge shallowly
1.4.1 the caller's options object is changed
1.4.1 empty options are accepted, null is not
1.4.1 replay on a public channel throws
1.4.1 HTTP requests keep the query of the socket URL
1.4.3 handlers get payload, ref and join ref
1.4.3 a changes listener added while errored ends in a mismatch
1.4.3 broadcast events match in any case; no event matches none
1.4.3 on('BROADCAST') never fires
1.4.4 subscribe does nothing unless closed, and ignores the new callback
1.4.4 subscribe on an errored channel reconnects and reports to the first callback
1.4.4 subscribe after a close throws
1.4.4 the shape of the join payload
1.4.5 unsubscribe: CLOSED, out of the list, 'ok'
1.4.5 a CLOSED callback that throws rejects the promise
1.4.5 unsubscribe works from any state
1.4.6 untrack has no payload key
1.4.6 track before subscribe rejects
1.4.6 track while not joined is held and sent after the join
1.4.6 presenceState is empty at first, kept after a close and across reconnects
1.4.7 broadcasts are never held: HTTP while not joined
1.4.7 acknowledged sends and presence: ok, error, timed out
1.4.7 the HTTP fallback never rejects
1.4.8 httpSend encodes both segments of its path
1.4.8 persist on a public channel rejects
1.4.9 teardown leaves pending sends unsettled
1.9 a binary broadcast push
1.9 the frames of vsn 1.0.0
1.13 a close with 1000 by the server reconnects
2.1 subscribe while closing gets stuck
2.1 the reconnect delays are the same whatever the code
2.3 CHANNEL_ERROR on a socket close, own disconnect included
2.3 CHANNEL_ERROR on a connect failure
2.3 CHANNEL_ERROR on a heartbeat timeout
2.3 CHANNEL_ERROR on phx_error
2.3 CHANNEL_ERROR on a refused join, with its text
2.3 a string response is split into characters
2.3 CHANNEL_ERROR on a binding mismatch, after CLOSED
2.3 one CHANNEL_ERROR per loss, however many attempts fail
2.3 a server unreachable from the start: one CHANNEL_ERROR, no TIMED_OUT
2.3 a refused join is repeated and told each time
2.3 a timed out join is repeated and told each time
2.3 what was held goes out before SUBSCRIBED
2.3 a SUBSCRIBED callback that throws leaves the join valid
2.3 a second phx_error is told again
2.3 removeChannel and a new channel inside the callback
2.4 the status 'disconnected' never reaches the callback
2.4 the heartbeat timeout: CHANNEL_ERROR, close, reconnect, rejoin
2.5 a manual token cannot be cleared
2.5 a changed token is pushed to joined channels, the same one is not
2.5 a join does not wait for the token callback
2.6 a track update: join, leave, one sync
2.6 what presenceState shows inside handlers
2.6 presence after a rejoin: the difference as joins and leaves
2.7 the deferred disconnect
2.8 a parked join and the rejoin are both sent
2.8 the oldest of more than 100 held pushes is dropped
2.9 messages of an unknown topic are ignored
2.10 phx_error: errored, listed, rejoined after 1 s
2.10 closed cleanly by the server: CHANNEL_ERROR with code and reason
2.10 link lost: CHANNEL_ERROR with 1006
2.10 own disconnect: no reconnect, connect rejoins
2.10 own disconnect while connecting
2.10 removeChannel while joining: the late reply is ignored
2.10 removeChannel and the same topic again: late frames of the old one are dropped
2.10 malformed frames
2.10 a handler that throws
2.10 a callback that throws on a loss
2.10 a callback that throws on SUBSCRIBED
2.10 a system error changes no state
3.1 a mismatch is terminal
3.1 an empty list of bindings is a mismatch
3.2 the payload of a change, TRUNCATE included
3.3 numbers are doubles, NaN stays text
3.3 arrays keep NULL as text
"""
_QUIRKS = """\
first join may lack the token
callback exceptions skip handlers and reconnects
pending sends hang after teardown and overflow
string error responses are split
stale parked join is sent too
subscribe while closing gets stuck
hooks accumulate per connect
listeners added while errored end in a mismatch
setAuth(null) cannot clear a token
unsubscribe acknowledges itself
reconnects even after 1000
options of an existing channel are ignored
subscribe on a used channel throws
null broadcast crashes
floats for int8
CHANNEL_ERROR on the own disconnect
broadcast events in any case, types exact
three arguments to handlers
setAuth works at the call
README example without config is ignored
"""

_ADDITIONS = """\
postgres_changes_options: sent as given, wait makes the join more patient
send with persist: where it works, where it cannot
http_send with persist: in the query, where it cannot
has_logger
replication_ready: sent as given, its system message arrives
select in a filter of changes
several conditions in a filter of changes
not. in a filter of changes
presence enabled by option
broadcast replay and its meta
binary broadcasts, sent and received
the warning of the HTTP fallback goes to the logger
the error of an unknown version names it
"""

VERIFIED = {f"V{n}": text for n, text in enumerate(_VERIFIED.splitlines(), 1)}
QUIRKS = {f"Q{n}": text for n, text in enumerate(_QUIRKS.splitlines(), 1)}
ADDITIONS = {f"A{n}": text for n, text in enumerate(_ADDITIONS.splitlines(), 1)}
KEPT = {"Q9", "Q11", "Q13", "Q16", "Q17", "Q19"}
"""Quirks that our client keeps, so that nothing differs; every other quirk is a defect."""
