from __future__ import annotations

import math
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supabase_rt._wire.urls import (
    Endpoint,
    encode_component,
    path_segment,
    realtime_endpoint,
    redact,
)

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl"


# -- the socket --------------------------------------------------------------------------


@pytest.mark.conformance("PS10")
@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("wss://x.supabase.co/realtime/v1", "wss://x.supabase.co/realtime/v1/websocket"),
        ("ws://localhost:4000/socket", "ws://localhost:4000/socket/websocket"),
        ("http://localhost:54321/realtime/v1", "ws://localhost:54321/realtime/v1/websocket"),
        ("https://h/a/b/realtime/v1", "wss://h/a/b/realtime/v1/websocket"),
        ("wss://h/realtime/v1///", "wss://h/realtime/v1/websocket"),
        ("wss://h", "wss://h/websocket"),
        ("wss://h/", "wss://h/websocket"),
        ("WSS://h/x", "wss://h/x/websocket"),
        ("ws://[::1]:4000/socket", "ws://[::1]:4000/socket/websocket"),
    ],
)
def test_the_socket_is_below_the_endpoint(url: str, socket: str) -> None:
    assert Endpoint(url).socket_url({}, "2.0.0") == f"{socket}?vsn=2.0.0"


@pytest.mark.conformance("CF2", "CF4", "LG2", "LG3", "PS2")
def test_parameters_stand_in_their_order_before_log_level_and_vsn() -> None:
    endpoint = Endpoint("wss://x.supabase.co/realtime/v1")
    assert endpoint.socket_url({"apikey": "KEY", "b": "1", "a": "2"}, "1.0.0", "info") == (
        "wss://x.supabase.co/realtime/v1/websocket?apikey=KEY&b=1&a=2&log_level=info&vsn=1.0.0"
    )


def test_names_and_values_are_percent_encoded_as_in_javascript() -> None:
    found = Endpoint("ws://h").socket_url({"a key": "a+b&c=d/é!~*'()"}, "2.0.0")
    assert found == "ws://h/websocket?a%20key=a%2Bb%26c%3Dd%2F%C3%A9!~*'()&vsn=2.0.0"


@pytest.mark.parametrize(
    ("value", "text"),
    [(10, "10"), (10.0, "10"), (0.5, "0.5"), (True, "true"), (False, "false"), ("", "")],
)
def test_values_are_written_as_javascript_writes_them(value: Any, text: str) -> None:
    assert Endpoint("ws://h").socket_url({"n": value}, "2.0.0").endswith(f"?n={text}&vsn=2.0.0")


@pytest.mark.parametrize("value", [None, b"x", [1], {}])
def test_a_parameter_that_is_neither_text_nor_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"params\['n'\] is text or a number"):
        Endpoint("ws://h").socket_url({"n": value}, "2.0.0")


def test_vsn_is_the_clients_and_log_level_replaces_a_parameter_of_that_name() -> None:
    found = Endpoint("ws://h").socket_url({"vsn": "9", "log_level": "x", "a": 1}, "2.0.0", "warn")
    assert found == "ws://h/websocket?log_level=warn&a=1&vsn=2.0.0"


def test_a_query_of_the_endpoint_goes_first() -> None:
    endpoint = Endpoint("wss://h/realtime/v1?region=eu")
    assert endpoint.socket_url({"a": 1}, "2.0.0") == (
        "wss://h/realtime/v1/websocket?region=eu&a=1&vsn=2.0.0"
    )
    assert endpoint.http_url == "https://h/realtime/v1/api/broadcast?region=eu"


@given(st.text())
def test_encoding_is_undone_by_decoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    assert unquote(encode_component(text)) == text


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("x.supabase.co/realtime/v1", "must start with ws://, wss://, http:// or https://"),
        ("localhost:4000/socket", "must start with"),
        ("ftp://h/x", "must start with"),
        ("", "must start with"),
        ("wss://", "names no host"),
        ("wss:///realtime/v1", "names no host"),
        ("wss://:4000/x", "names no host"),
        ("wss://h:port/x", "cannot be read"),
        ("wss://h:99999/x", "cannot be read"),
        ("wss://[::1/x", "cannot be read"),
        ("wss://h /x", "blank or a control character"),
        (" wss://h", "blank or a control character"),
        ("wss://h/x\n", "blank or a control character"),
        ("wss://h/x\x7f", "blank or a control character"),
    ],
)
@pytest.mark.parametrize("make", [Endpoint, realtime_endpoint])
def test_a_bad_url_is_refused_with_what_to_write(make: Any, url: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make(url)


@pytest.mark.parametrize("make", [Endpoint, realtime_endpoint])
def test_a_url_that_is_no_text_is_a_type_error(make: Any) -> None:
    with pytest.raises(TypeError, match=r"the URL is a str such as '.*supabase.co.*, not NoneType"):
        make(None)


def test_a_refused_url_shows_no_secret() -> None:
    with pytest.raises(ValueError) as caught:
        Endpoint(f"wss://user:hidden@h:port/x?apikey={JWT}")
    assert "hidden" not in str(caught.value)
    assert JWT not in str(caught.value)


# -- over HTTP ---------------------------------------------------------------------------


@pytest.mark.conformance("TF8")
@pytest.mark.parametrize(
    ("url", "http"),
    [
        ("wss://h/realtime/v1", "https://h/realtime/v1/api/broadcast"),
        ("ws://h:54321/realtime/v1/", "http://h:54321/realtime/v1/api/broadcast"),
        ("http://h/realtime/v1", "http://h/realtime/v1/api/broadcast"),
        ("https://h/realtime/v1//", "https://h/realtime/v1/api/broadcast"),
        ("ws://h:4000/socket", "http://h:4000/api/broadcast"),
        ("ws://h:4000/socket/websocket", "http://h:4000/api/broadcast"),
        ("wss://h/realtime/v1/websocket", "https://h/realtime/v1/api/broadcast"),
        ("wss://h/realtime/v1/websocket/", "https://h/realtime/v1/api/broadcast"),
        ("wss://h/a/b/socket/websocket", "https://h/a/b/api/broadcast"),
        ("wss://h", "https://h/api/broadcast"),
        ("wss://websocket", "https://websocket/api/broadcast"),
        ("wss://h/mysocket", "https://h/mysocket/api/broadcast"),
        ("wss://h/socket?a=1", "https://h/api/broadcast?a=1"),
    ],
)
def test_the_http_url_stands_beside_the_socket(url: str, http: str) -> None:
    assert Endpoint(url).http_url == http


@pytest.mark.conformance("CM44")
@pytest.mark.parametrize(
    ("topic", "event", "path"),
    [
        ("room:42", "cursor", "room%3A42/events/cursor"),
        ("a/b c", "x?y#z", "a%2Fb%20c/events/x%3Fy%23z"),
        ("é%", "!~*'()", "%C3%A9%25/events/!~*'()"),
    ],
)
def test_topic_and_event_are_segments_encoded_as_in_javascript(
    topic: str, event: str, path: str
) -> None:
    found = Endpoint("wss://h/realtime/v1").broadcast_url(topic, event)
    assert found == f"https://h/realtime/v1/api/broadcast/{path}"


@pytest.mark.parametrize(
    ("private", "persist", "query"),
    [
        (False, None, ""),
        (False, False, ""),
        (True, None, "?private=true"),
        (True, True, "?private=true&persist=true"),
        (True, {"ttl": 60}, "?private=true&persist%5Bttl%5D=60"),
    ],
)
def test_private_and_persist_are_flags_of_the_query(
    private: bool, persist: Any, query: str
) -> None:
    found = Endpoint("ws://h").broadcast_url("t", "e", private, persist)
    assert found == f"http://h/api/broadcast/t/events/e{query}"


def test_parameters_go_before_the_flags() -> None:
    found = Endpoint("ws://h").broadcast_url("t", "e", True, params={"apikey": "K", "vsn": "2.0.0"})
    assert found == "http://h/api/broadcast/t/events/e?apikey=K&vsn=2.0.0&private=true"


# -- the project's URL -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("https://x.supabase.co", "wss://x.supabase.co/realtime/v1"),
        ("https://x.supabase.co/", "wss://x.supabase.co/realtime/v1"),
        ("http://127.0.0.1:54321", "ws://127.0.0.1:54321/realtime/v1"),
        ("http://h/custom/base", "ws://h/custom/base/realtime/v1"),
        ("https://h/base/?q=1#f", "wss://h/base/realtime/v1"),
    ],
)
def test_the_endpoint_of_a_project(url: str, endpoint: str) -> None:
    assert realtime_endpoint(url) == endpoint


# -- secrets -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"wss://h/websocket?apikey={JWT}&vsn=2.0.0", "wss://h/websocket?apikey=***&vsn=2.0.0"),
        ("?apikey=short&x=1", "?apikey=***&x=1"),
        ("?apikey%3Dshort", "?apikey%3D***"),
        ("{'SUPABASE_SERVICE_ROLE_API_KEY': 'abc'}", "{'SUPABASE_SERVICE_ROLE_API_KEY': '***'}"),
        ("?access_token=abc#x", "?access_token=***#x"),
        ('{"access_token":"abc","n":1}', '{"access_token":"***","n":1}'),
        ("{'token': 'abc'}", "{'token': '***'}"),
        ("x-api-key: abc", "x-api-key: ***"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        (f"joined with {JWT}.", "joined with ***."),
        (f"cut off: {JWT[:20]}", "cut off: ***"),
        ("key sb_secret_a-b_c.", "key ***."),
        ("%3Dsb_publishable_abc", "%3D***"),
        ("wss://user:p@ss@h/x", "wss://***@h/x"),
        ("wss://user:p/s?s#1@h/x", "wss://***@h/x"),
        (r"password=my\ secret user=u", "password=*** user=u"),
        ("password = 'my secret' user=u", "password = '***' user=u"),
        (r"sslpassword='it\'s mine' user=u", "sslpassword='***' user=u"),
        ('{"token": "a b", "n": 1}', '{"token": "***", "n": 1}'),
        ("token='cut o", "token=*** o"),
    ],
)
def test_keys_tokens_and_passwords_are_masked(text: str, redacted: str) -> None:
    assert redact(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        "MalformedJWT: The token provided is not a valid JWT",
        "InvalidJWTToken: Token has expired 60 seconds ago",
        "Fields `role` and `exp` are required in JWT",
        "wss://h/realtime/v1/websocket?vsn=2.0.0",
        "usb_device honey",
        "mail@example.com",
        "http://127.0.0.1:54321/rest/v1/t?mail=a@b.c",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(), st.text())
def test_redacting_is_idempotent_and_finds_a_jwt_anywhere(before: str, after: str) -> None:
    found = redact(f"{before}{JWT}{after}")
    assert JWT not in found
    assert redact(found) == found


def test_the_repr_of_an_endpoint_is_redacted() -> None:
    endpoint = Endpoint(f"https://user:pw@h/realtime/v1/?apikey={JWT}")
    assert repr(endpoint) == "Endpoint('wss://***@h/realtime/v1?apikey=***')"


def test_endpoints_compare_by_value() -> None:
    assert Endpoint("https://h/x/") == Endpoint("wss://h/x")
    assert hash(Endpoint("ws://h")) == hash(Endpoint("http://h"))
    assert Endpoint("ws://h") != Endpoint("wss://h")


def test_numbers_beyond_the_finite_keep_their_python_text() -> None:
    assert "n=inf" in Endpoint("ws://h").socket_url({"n": math.inf}, "2.0.0")


@pytest.mark.parametrize(
    ("name", "segment"),
    [(".", "%2E"), ("..", "%2E%2E"), ("...", "..."), ("a.b", "a.b"), ("/..", "%2F..")],
)
def test_a_segment_of_a_path_is_never_one_that_leads_elsewhere(name: str, segment: str) -> None:
    assert path_segment(name) == segment
