from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._protocol.reconnect import close_code, http_failure, http_skips_immediate_retry
from supabase_rt._protocol.refusals import (
    Verdict,
    close_error,
    join_refusal,
    system_close,
    system_error,
)
from supabase_rt.errors import AuthError, Refused, SubscribeError

RETRY, RETRY_LATER, FINAL = Verdict.RETRY, Verdict.RETRY_LATER, Verdict.FINAL
AFTER_TOKEN, UNTIL_TOKEN = Verdict.AFTER_TOKEN, Verdict.FINAL_UNTIL_TOKEN
TOPIC = "realtime:room1"

# -- joins -------------------------------------------------------------------------------

CODED = [
    ("TopicNameRequired: You must provide a topic name", FINAL),
    ("RealtimeRestarting: Realtime is restarting, please standby", RETRY),
    ("TenantNotFound: Tenant with the given ID does not exist", FINAL),
    ("PrivateOnly: This project only allows private channels", FINAL),
    ("ConnectionRateLimitReached: Too many connected users", RETRY_LATER),
    ("ClientJoinRateLimitReached: Too many joins per second", RETRY_LATER),
    ("ChannelRateLimitReached: Too many channels", FINAL),
    ("InvalidJWTToken: Token has expired 60 seconds ago", AFTER_TOKEN),
    ("InvalidJWTToken: Fields `role` and `exp` are required in JWT", UNTIL_TOKEN),
    ("InvalidJWTToken: Token expiration time is invalid", AFTER_TOKEN),
    ("InvalidJWTToken: something new", UNTIL_TOKEN),
    ("MalformedJWT: The token provided is not a valid JWT", UNTIL_TOKEN),
    ("JwtSignatureError: Failed to validate JWT signature", UNTIL_TOKEN),
    ("JwtSignerError: Failed to generate JWT signer, check your JWT secret", UNTIL_TOKEN),
    ('JwtSignerError: Failed to generate JWT signer for key ID (kid) "k"', UNTIL_TOKEN),
    ("Unauthorized: You do not have permissions to read from this Channel topic: r", UNTIL_TOKEN),
    ("Unauthorized: other words", UNTIL_TOKEN),
    ("RealtimeDisabledForTenant: Realtime disabled for this tenant", FINAL),
    ("IncreaseConnectionPool: Please increase your connection pool size", RETRY),
    ("DatabaseLackOfConnections: Database can't accept more connections", RETRY),
    ("DatabaseConnectionRateLimitReached: Too many database connections attempts", RETRY_LATER),
    ("UnableToConnectToProject: Realtime was unable to connect to the project database", RETRY),
    ("InitializingProjectConnection: Realtime is initializing the project connection", RETRY),
    ("InitializingProjectConnection: Connecting to the project database", RETRY),
    ("QueryCanceled: %Postgrex.Error{}", RETRY),
    ("MissingPartition: Realtime was unable to find the expected messages partition", RETRY),
    ("TimeoutOnRpcCall: Node request timeout", RETRY),
    ("ErrorOnRpcCall: RPC call error: :nodedown", RETRY),
    ("UnableToReplayMessages: Replay params are not valid", FINAL),
    ("UnableToReplayMessages: Replay is not allowed for public channels", FINAL),
    ("UnableToReplayMessages: Realtime was unable to replay messages", RETRY),
    ("MusterJoinError: :timeout", RETRY),
    ("UnknownErrorOnChannel: no function clause matching in Access.get/3", RETRY),
    ("SomethingNew: nobody knows", RETRY),
    ("SomethingNewRateLimitReached: nobody knows", RETRY_LATER),
    ("OldName: Token has expired 60 seconds ago", AFTER_TOKEN),
]

CODELESS = [
    ("Realtime was unable to connect to the project database", "UnableToSetPolicies", RETRY),
    ("Unknown Error on Channel", "UnknownErrorOnChannel", RETRY),
    ("join crashed", "JoinCrashed", RETRY),
    ("too many channels joined", "TooManyChannels", FINAL),
    ("unmatched topic", "UnmatchedTopic", FINAL),
    ("Unauthorized", "Unauthorized", UNTIL_TOKEN),
    ("Token has expired 3 seconds ago", "InvalidJWTToken", AFTER_TOKEN),
    ("something nobody has ever said", "Refused", RETRY),
]


def check(reason: str, code: str, verdict: Verdict) -> None:
    response = {"reason": reason}
    error, found = join_refusal(response, TOPIC)
    assert found is verdict
    assert type(error) is Refused
    assert (str(error), error.code, error.topic) == (reason, code, TOPIC)
    assert error.response is response
    assert error.retryable is (verdict in (RETRY, RETRY_LATER))
    assert error.hint


@pytest.mark.parametrize(("reason", "verdict"), CODED)
def test_a_refused_join_is_sorted_by_the_servers_code(reason: str, verdict: Verdict) -> None:
    check(reason, reason.partition(":")[0], verdict)


@pytest.mark.parametrize(("reason", "code", "verdict"), CODELESS)
def test_a_text_without_a_code_gets_one(reason: str, code: str, verdict: Verdict) -> None:
    check(reason, code, verdict)


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ({"reason": "gone", "details": "for good"}, "gone, for good"),
        ({"reason": {"a": [1]}, "n": 5, "no": None, "yes": True}, '{"a":[1]}, 5, , true'),
        ({"error": "other words"}, "other words"),
        ("plain words", "plain words"),
        (["a", "b"], "a, b"),
        (b"bytes \xff", "bytes \ufffd"),
        (7, "7"),
        ({}, "error"),
        ([], "error"),
        ("", "error"),
        (None, "error"),
        ({"reason": ""}, "error"),
    ],
)
def test_the_text_holds_each_value_of_the_response(response: Any, text: str) -> None:
    error, verdict = join_refusal(response, TOPIC)
    assert (str(error), error.code, error.response) == (text, "Refused", response)
    assert verdict is RETRY


def test_the_code_is_read_from_the_reason_wherever_it_stands() -> None:
    error, verdict = join_refusal({"details": "x", "reason": "PrivateOnly: no"}, TOPIC)
    assert (str(error), error.code, verdict) == ("x, PrivateOnly: no", "PrivateOnly", FINAL)


def test_the_hint_is_in_the_traceback() -> None:
    error, _ = join_refusal("PrivateOnly: no", TOPIC)
    assert error.__notes__ == [f"hint: {error.hint}"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_response_gives_an_error(response: Any) -> None:
    error, verdict = join_refusal(response, TOPIC)
    assert str(error)
    assert error.code
    assert isinstance(verdict, Verdict)


# -- system messages ---------------------------------------------------------------------

CLOSES = [
    ("Replication connection was not established in time", "ReplicationConnectionTimeout", RETRY),
    ("Too many messages per second", "MessagePerSecondRateLimitReached", RETRY_LATER),
    ("Too many presence messages per second", "PresenceRateLimitReached", RETRY_LATER),
    ("Client presence rate limit exceeded", "ClientPresenceRateLimitReached", RETRY_LATER),
    ("Track message size exceeded", "TrackMessageSizeExceeded", RETRY),
    (":increase_connection_pool", "IncreaseConnectionPool", RETRY),
    (":connect_rate_limit_reached", "DatabaseConnectionRateLimitReached", RETRY_LATER),
    (":something_new", "Closed", RETRY),
    ("Realtime was unable to connect to the project database", "UnableToSetPolicies", RETRY),
    ("Query was cancelled, please try again", "QueryCanceled", RETRY),
    ("Node request timeout", "TimeoutOnRpcCall", RETRY),
    ("RPC call error: :nodedown", "ErrorOnRpcCall", RETRY),
    ("Server requested disconnect", "ServerRequestedDisconnect", RETRY),
    (
        "You do not have permissions to read from this Channel topic: private-room",
        "Unauthorized",
        UNTIL_TOKEN,
    ),
    (
        "You no longer have permission to read from this Channel topic: private-room",
        "Unauthorized",
        UNTIL_TOKEN,
    ),
]

TOKEN_CLOSES = [
    ("Token has expired 0 seconds ago", "InvalidJWTToken", AFTER_TOKEN),
    ("Token expiration time is invalid", "InvalidJWTToken", AFTER_TOKEN),
    ("Fields `role` and `exp` are required in JWT", "InvalidJWTToken", UNTIL_TOKEN),
    ("The token provided is not a valid JWT", "MalformedJWT", UNTIL_TOKEN),
    (":signature_error", "JwtSignatureError", UNTIL_TOKEN),
    ('Failed to generate JWT signer for key ID (kid) "k", check', "JwtSignerError", UNTIL_TOKEN),
]


@pytest.mark.parametrize(("message", "code", "verdict"), CLOSES + TOKEN_CLOSES)
def test_a_close_is_sorted_by_the_system_error_before_it(
    message: str, code: str, verdict: Verdict
) -> None:
    assert system_close(message) is verdict
    error, found = close_error(message, TOPIC)
    assert found is verdict
    assert str(error) == f"channel closed by the server: {message}"
    assert error.code == code
    assert error.retryable is (verdict in (RETRY, RETRY_LATER))
    assert error.hint


@pytest.mark.parametrize(("message", "code", "verdict"), TOKEN_CLOSES)
def test_a_close_over_a_token_is_an_auth_error(message: str, code: str, verdict: Verdict) -> None:
    assert type(close_error(message, TOPIC)[0]) is AuthError


@pytest.mark.parametrize(("message", "code", "verdict"), CLOSES)
def test_any_other_close_is_a_subscribe_error(message: str, code: str, verdict: Verdict) -> None:
    error = close_error(message, TOPIC)[0]
    assert type(error) is SubscribeError
    assert error.topic == TOPIC


@pytest.mark.parametrize("message", [None, ""])
def test_a_close_without_a_word_is_tried_again(message: str | None) -> None:
    error, verdict = close_error(message, TOPIC)
    assert isinstance(error, SubscribeError)
    assert (str(error), error.code, error.topic) == (
        "channel closed by the server",
        "Closed",
        TOPIC,
    )
    assert error.retryable
    assert verdict is RETRY


PARAMS = '[event: *, schema: public, table: t, filters: [{"c", "eq", "1", false}], select: nil]'
UNABLE = "Unable to subscribe to changes with given parameters"
EXCEPTION = (
    f"{UNABLE}. An exception happened so please check "
    f"your connect parameters: {PARAMS}. Exception: ERROR P0001 (raise_exception) "
)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ('Error parsing `filter` params: ["foo", "hey"]', "column=operator.value"),
        (
            "Error parsing `filter` params: filter must not contain empty segments",
            "a comma too many",
        ),
        (
            "Error parsing `filter` params: `in` filter value must be wrapped by parentheses",
            "id=in.(1,2)",
        ),
        ("Error parsing `select` params: expected a list of column name strings", "list of column"),
        ("Column selection is not supported for wildcard subscriptions. Provide", "one table"),
        ("No subscription params provided. Please provide at least a `schema`", "schema"),
        (
            f"{UNABLE}. Please check Realtime is enabled for the given parameters: {PARAMS}",
            "alter publication supabase_realtime add table",
        ),
        (EXCEPTION + "invalid column for filter c", "a column that the table does not have"),
        (EXCEPTION + "invalid column for select c", "a column that the table does not have"),
        (EXCEPTION + "failed to lookup type for column c", "type"),
        (EXCEPTION + "too many values for `in` filter. Maximum 100", "100"),
        (EXCEPTION + "invalid value for is filter: must be null, true", "null, true, false"),
        (EXCEPTION + "is true filter requires a boolean column, got text", "boolean"),
        (EXCEPTION + "operator like requires a text-compatible column type, got int4", "text"),
        (EXCEPTION + "invalid regular expression for match filter: x", "regular expression"),
        (EXCEPTION + 'invalid input syntax for type bigint: "x"', "type of its column"),
        (EXCEPTION + "anything else", "filter of on('postgres_changes', ...)"),
    ],
)
def test_a_subscription_the_server_will_not_make_is_final_and_says_the_remedy(
    message: str, remedy: str
) -> None:
    error = system_error(message, TOPIC)
    assert type(error) is SubscribeError
    assert (str(error), error.topic) == (message, TOPIC)
    assert error.code == "RealtimeDisabledForConfiguration"
    assert not error.retryable
    assert remedy in error.hint


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ('{:error, "Too many database timeouts"}', "IncreaseSubscriptionConnectionPool"),
        ("{:error, %DBConnection.ConnectionError{}}", "UnableToSubscribeToPostgres"),
        (":timeout", "UnableToSubscribeToPostgres"),
        ("", "UnableToSubscribeToPostgres"),
    ],
)
def test_a_subscription_the_server_tries_again_is_retryable(message: str, code: str) -> None:
    error = system_error(message, TOPIC)
    assert (error.code, error.retryable) == (code, True)
    assert error.hint


# -- HTTP statuses and close codes -------------------------------------------------------

FINAL_STATUSES = [400, 401, 403, 404, 405, 406, 410, 414, 415, 426, 431, 300, 301, 302, 307, 308]
RETRYABLE_STATUSES = [408, 425, 429, 500, 502, 503, 504, 520, 599, 200, 402, 407, 418, 422, 600]


@pytest.mark.parametrize("status", FINAL_STATUSES)
def test_a_status_that_needs_a_change_is_final(status: int) -> None:
    retryable, hint, code = http_failure(status)
    assert (retryable, code) == (False, f"HTTP{status}")
    assert hint


@pytest.mark.parametrize("status", RETRYABLE_STATUSES)
def test_any_other_status_is_retryable(status: int) -> None:
    retryable, hint, code = http_failure(status)
    assert (retryable, code) == (True, f"HTTP{status}")
    assert hint


@pytest.mark.parametrize(
    ("status", "body", "code", "hint"),
    [
        (401, '{"error":"API key is missing"}', "MissingAPIKey", "params={'apikey': key}"),
        (401, '{"error":"Token has expired"}', "InvalidJWTToken", "fresh token"),
        (401, '{"error":"Fields `role` and `exp` are required"}', "InvalidJWTToken", "claims"),
        (401, '{"error":"The token provided is not a valid JWT"}', "MalformedJWT", "three parts"),
        (401, '{"error":"Failed to validate JWT signature"}', "JwtSignatureError", "secret"),
        (401, '{"error":"Failed to generate JWT signer, check"}', "JwtSignerError", "no key"),
        (
            403,
            '{"error":"Realtime was disabled for this tenant"}',
            "RealtimeDisabledForTenant",
            "switch",
        ),
        (404, '{"error":"Tenant not found"}', "TenantNotFound", "project ref"),
        (429, '{"error":"Too many connected users"}', "ConnectionRateLimitReached", "max_concurr"),
        (429, '{"error":"Too many joins per second"}', "JoinsRateLimitReached", "max_joins"),
        (500, '{"error":"Error connecting to Realtime"}', "ErrorConnectingToWebsocket", "logs"),
    ],
)
def test_a_body_of_realtime_gives_code_and_hint(
    status: int, body: str, code: str, hint: str
) -> None:
    retryable, found, word = http_failure(status, body=body)
    assert word == code
    assert hint in found
    assert retryable is http_failure(status)[0]


@pytest.mark.parametrize(
    ("status", "slow"), [(429, True), (500, True), (503, True), (401, False), (408, False)]
)
def test_429_and_5xx_start_slow(status: int, slow: bool) -> None:
    assert http_skips_immediate_retry(status) is slow


@pytest.mark.parametrize("code", [1008, 1010, 3000, 3003])
def test_a_close_code_that_needs_a_change_is_final(code: int) -> None:
    assert close_code(code) == (False, False)


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1005, 1006, 1009, 1011, 4000, None])
def test_any_other_close_code_is_tried_again_at_once(code: int | None) -> None:
    assert close_code(code) == (True, False)


@pytest.mark.parametrize("code", [1012, 1013])
def test_a_restarting_or_busy_server_is_given_time(code: int) -> None:
    assert close_code(code) == (True, True)
