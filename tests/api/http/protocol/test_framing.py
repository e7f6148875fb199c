"""HTTP framing: one message in, one answer out, however the bytes are split."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.protocol.head import Head
from api.http.protocol.messages import MessageReader
from api.http.protocol.refusals import Refused
from api.network.http_limits import MAX_CHUNKS, MAX_EXTENSION_BYTES, MAX_HEADERS, HttpLimits

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

LIMITS = HttpLimits(head_bytes=4096, body_bytes=2048)
NEXT = b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nhost: a\r\n"
POST = b"POST /a HTTP/1.1\r\nhost: a\r\n"
LENGTH = b"content-length: %d\r\n" % len(SMUGGLED)
CHUNKED = b"transfer-encoding: chunked\r\n"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(SMUGGLED), SMUGGLED)
OFFERS = {
    name: b"connection: upgrade\r\nupgrade: %b\r\n" % name.encode()
    for name in ("h2c", "websocket", "TLS/1.0", "any-word", "h2c, websocket")
} | {
    "no connection option": b"upgrade: h2c\r\n",
    "two headers": b"connection: upgrade\r\nupgrade: h2c\r\nupgrade: websocket\r\n",
    "like curl": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n",
}

# Each is one message whose body looks like a request.
WHOLE = (
    {
        f"{name}, length": POST + offer + LENGTH + b"\r\n" + SMUGGLED
        for name, offer in OFFERS.items()
    }
    | {
        f"{name}, chunks": POST + offer + CHUNKED + b"\r\n" + IN_CHUNKS + b"\r\n"
        for name, offer in OFFERS.items()
    }
    | {
        "body of a GET": GET + LENGTH + b"\r\n" + SMUGGLED,
        "expectation": POST + b"expect: 100-continue\r\n" + LENGTH + b"\r\n" + SMUGGLED,
        "empty line before": b"\r\n" + POST + LENGTH + b"\r\n" + SMUGGLED,
        "trailers": POST + CHUNKED + b"\r\n" + IN_CHUNKS + b"x-api-key: a\r\nhost: b\r\n\r\n",
        "chunk extensions": POST + CHUNKED + b"\r\n"
        + IN_CHUNKS.replace(b"\r\n", b' ; a="b"\r\n', 1) + b"\r\n",
        "absolute target": b"POST http://b/a HTTP/1.1\r\nhost: a\r\n" + LENGTH + b"\r\n" + SMUGGLED,
    }
)  # fmt: skip

# Each is refused with this status, and nothing after it is read.
REFUSED = {
    "CONNECT": (501, b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00"),
    "two empty lines": (400, b"\r\n\r\n" + GET + b"\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, GET + b"host: a\r\n\r\n"),
    "asterisk": (400, b"GET * HTTP/1.1\r\nhost: a\r\n\r\n"),
    "user information": (400, b"GET http://a@b/c HTTP/1.1\r\nhost: a\r\n\r\n"),
    "fragment": (400, b"GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
    "byte beyond ASCII in the target": (400, b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n"),
    "same length twice": (400, POST + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc"),
    "two lengths": (400, POST + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
    "length and chunks": (400, POST + b"content-length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    "another coding": (501, POST + b"transfer-encoding: chunked, gzip\r\n\r\n"),
    "coding twice": (400, POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n"),
    "coding in HTTP/1.0": (400, b"POST / HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    "bare line feed": (400, GET + b"a: b\nc: d\r\n\r\n"),
    "only bare line feeds": (400, b"GET / HTTP/1.1\nhost: a\n\n"),
    "bare line feed and another version": (400, b"GET / HTTP/2.0\r\na: b\nc: d\r\n\r\n"),
    "bare carriage return": (400, GET + b"a: b\rc: d\r\n\r\n"),
    "NUL": (400, GET + b"a: \0\r\n\r\n"),
    "blank before the colon": (400, GET + b"content-length : 3\r\n\r\nabc"),
    "folded line": (400, GET + b"upgrade:\r\n h2c\r\n\r\n"),
    "no name": (400, GET + b": b\r\n\r\n"),
    "unknown expectation": (417, POST + b"expect: a\r\n" + LENGTH + b"\r\n"),
    "long body": (413, POST + b"content-length: 2049\r\n\r\n"),
    "long body in chunks": (413, POST + CHUNKED + b"\r\n801\r\n"),
    "huge chunk": (413, POST + CHUNKED + b"\r\nffffffffffffffff\r\n"),
    "chunk that is too long": (400, POST + CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n"),
    "chunk ends with a line feed": (400, POST + CHUNKED + b"\r\n1\r\na\n0\r\n\r\n"),
    "blank after a size": (400, POST + CHUNKED + b"\r\n1 \r\na\r\n0\r\n\r\n"),
    "trailer that is no header": (400, POST + CHUNKED + b"\r\n0\r\na b: c\r\n\r\n"),
    **{
        f"length {value!r}": (400, POST + b"content-length: " + value + b"\r\n\r\nabc")
        for value in (b"+3", b"-3", b"0x3", b"3_0", b"3, 3", b"3 3", b"", b"\xb2", b"9" * 19)
    },
}
LONG = {
    "long target": (414, b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nhost: a\r\n\r\n"),
    "long header": (431, GET + b"a: " + b"b" * 5000 + b"\r\n\r\n"),
    "short headers": (431, GET + b"a: b\r\n" * 1000 + b"\r\n"),
    "many headers": (431, GET + b"a: b\r\n" * MAX_HEADERS + b"\r\n"),
    "many trailers": (431, POST + CHUNKED + b"\r\n0\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1)),
    "long extension": (400, POST + CHUNKED + b"\r\n1;" + b"a" * (MAX_EXTENSION_BYTES + 30)),
    "many extensions": (400, POST + CHUNKED + b"\r\n" + b"1;aaaaaaaa\r\nb\r\n" * 1000),
}


def read(parts: list[bytes], limits: HttpLimits = LIMITS) -> list[object]:
    """Return target and body of each message, and the status of a refusal at the end."""
    reader = MessageReader(limits)
    found: list[object] = []
    for part in parts:
        reader.feed(part)
        try:
            while (message := reader.next()) is not None:
                assert dict(message.head.headers).get(b"x-api-key") is None
                found.append((message.head.target, message.body))
        except Refused as refused:
            return [*found, refused.status]
    return found


def divided(sent: bytes) -> list[list[bytes]]:
    """Return the bytes unsplit, split in two at each place, and one by one."""
    return [
        [sent],
        *([sent[:at], sent[at:]] for at in range(1, len(sent))),
        [sent[at : at + 1] for at in range(len(sent))],
    ]


@pytest.mark.parametrize("name", WHOLE)
def test_a_body_is_never_the_next_request(name: str) -> None:
    for parts in divided(WHOLE[name] + NEXT):
        assert read(parts) == [(b"/a", SMUGGLED), (b"/next", b"")], parts


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_is_read_after_a_refusal(name: str) -> None:
    status, sent = REFUSED[name]
    for parts in divided(NEXT + sent + NEXT):
        assert read(parts) == [(b"/next", b""), status], parts


@pytest.mark.parametrize("name", LONG)
def test_an_oversized_message_is_refused_however_it_arrives(name: str) -> None:
    status, sent = LONG[name]
    for size in (len(sent), 1, 7, 1000, 4095, 4096, 4097):
        parts = [sent[at : at + size] for at in range(0, len(sent), size)]
        assert read(parts) == [status], size


def test_the_number_of_chunks_has_a_limit() -> None:
    sent = POST + CHUNKED + b"\r\n" + b"1\r\na\r\n" * (MAX_CHUNKS + 1)
    assert read([sent], HttpLimits(body_bytes=1_000_000)) == [400]


ANY = [*WHOLE.values(), *(sent for _, sent in REFUSED.values())]


def heads_read(sent: bytes) -> list[Head]:
    """Return the heads of messages that arrive together."""
    reader = MessageReader(HttpLimits())
    reader.feed(sent)
    heads = []
    while (message := reader.next()) is not None:
        heads.append(message.head)
    return heads


@pytest.mark.parametrize("name", WHOLE)
def test_a_repeated_head_is_read_as_if_it_were_the_first(name: str) -> None:
    long = GET + b"a: " + b"b" * 2000 + b"\r\n\r\n"
    other = WHOLE[name].replace(b"host: a", b"host: c")
    for sent in (WHOLE[name], other, long, NEXT):
        assert heads_read(sent * 2) == heads_read(sent) * 2
    mixed = [WHOLE[name], other, WHOLE[name], long, WHOLE[name], NEXT, NEXT, other]
    assert heads_read(b"".join(mixed)) == [heads_read(each)[0] for each in mixed]


def test_the_application_cannot_change_the_next_head() -> None:
    reader = MessageReader(HttpLimits())
    for repeated in (GET + b"\r\n", GET + b"a: b\r\na: c\r\n\r\n"):
        reader.feed(repeated * 2)
        first = reader.next()
        assert first is not None
        first.head.headers.append((b"x-api-key", b"planted"))
        second = reader.next()
        assert second is not None
        assert (b"x-api-key", b"planted") not in second.head.headers


@given(
    st.lists(st.sampled_from(ANY), max_size=4),
    st.lists(st.integers(0, 2000), max_size=8),
)
def test_messages_in_any_parts_are_the_same_messages(
    messages: list[bytes], places: list[int]
) -> None:
    sent = b"".join(messages)
    cuts = sorted({0, len(sent), *(place for place in places if place < len(sent))})
    parts = [sent[start:end] for start, end in pairwise(cuts)]
    assert read(parts) == read([sent])
