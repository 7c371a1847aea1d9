"""What reaches the log is free of secrets and can always be stored (DESIGN rule 15)."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from breaker_store.core.cleaning import NAME_LIMIT, TEXT_LIMIT, clean_attempt, clean_name, clean_text

TOKEN = "AAFh9_Kx-2mZpQrStUvWxYz0123456789ab"
"""35 characters, as the second part of a bot's token has; none of it is a real one."""
BOT_TOKEN = f"123456789:{TOKEN}"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (f"https://api.telegram.org/bot{BOT_TOKEN}/sendMessage", "https://api.telegram.org/bot[hidden]/sendMessage"),
        (
            f"https://api.telegram.org/file/bot{BOT_TOKEN}/photos/1.jpg",
            "https://api.telegram.org/file/bot[hidden]/photos/1.jpg",
        ),
        (
            f"Cannot connect to host api.telegram.org:443 ssl:default [/bot{BOT_TOKEN}/getMe]",
            "Cannot connect to host api.telegram.org:443 ssl:default [/bot[hidden]/getMe]",
        ),
        (f"HTTP 401 for url 'http://10.0.0.1:8081/bot{BOT_TOKEN}/getMe'", "HTTP 401 for url 'http://10.0.0.1:8081/bot[hidden]/getMe'"),
        (f"https://proxy/?to=%2Fbot123456789%3A{TOKEN}%2FgetMe", "https://proxy/?to=%2Fbot[hidden]%2FgetMe"),
        (f"the bot {BOT_TOKEN} is gone", "the bot [hidden] is gone"),
        (f"Bot(token='{BOT_TOKEN}')", "Bot(token='[hidden]')"),
    ],
)  # fmt: skip
def test_a_bot_token_is_hidden_and_the_rest_of_the_address_stays(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_an_access_token_of_ours_is_hidden() -> None:
    secret = "Zm9v_-YmFy" * 4 + "bar"
    assert clean_text(f"used bs_0123456789ab_{secret}, see above") == "used bs_[hidden], see above"


@pytest.mark.parametrize("bot_id", ["123456", "7123456789", "123456789012"])
@pytest.mark.parametrize("prefix", ["", "/bot", "bot", "Bot", "_", "token "])
def test_a_bot_token_is_hidden_whatever_stands_before_it(prefix: str, bot_id: str) -> None:
    assert TOKEN not in clean_text(f"{prefix}{bot_id}:{TOKEN}/x")


HEADERS = [
    "Authorization: Bearer {}",
    "authorization: bearer {}",
    "AUTHORIZATION: BEARER {}",
    "Authorization: Basic {}",
    "Authorization: basic {}",
    "Authorization: {}",
    "Authorization: Token {}",
    "Authorization: Bot {}",
    "Authorization: ApiKey {}",
    "Authorization: Negotiate {}",
    "Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20240101/eu/s3, SignedHeaders=host, Signature={}",
    'Authorization: Digest username="Mufasa", realm="x", response="{}"',
    "Proxy-Authorization: Basic {}",
    "Authorization={}",
    "GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nAccept: */*",
    "{{'Authorization': 'Bearer {}'}}",
    "{{'Authorization': 'Negotiate {}', 'Accept': '*/*'}}",
    '{{"authorization":"Bearer {}","accept":"*/*"}}',
    '{{"authorization": "Basic {}"}}',
    "{{b'Authorization': b'Bearer {}'}}",
    "[(b'authorization', b'Bearer {}'), (b'accept', b'*/*')]",
    "[('Authorization', 'Token {}'), ('Accept', '*/*')]",
    "<CIMultiDictProxy('Host': 'x', 'Authorization': 'Bot {}')>",
    r"{{\"authorization\": \"Token {}\"}}",
    "curl -H 'Authorization: Bearer {}' https://example.org",
    "the server said no to Bearer {}",
    "the server said no to Basic {}",
    "X-Api-Key: {}",
    "{{'x-api-key': '{}'}}",
    "(b'x-api-key', b'{}')",
    "https://example.org/?api_key={}&page=2",
    "Cookie: theme=dark; session={}",
    "Set-Cookie: session={}; Path=/",
]


@pytest.mark.parametrize("shape", HEADERS)
@pytest.mark.parametrize("secret", ["c2VjcmV0OnZhbHVl", "eyJhbGciOi.J9eyJzdWIi.Oi-x_y==", "s3cr3t/+~abc="])
def test_an_authorization_value_is_hidden_in_every_printed_shape(shape: str, secret: str) -> None:
    cleaned = clean_text(shape.format(secret))
    assert secret[-6:] not in cleaned
    assert secret[:6] not in cleaned
    assert "[hidden]" in cleaned


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Authorization: Bearer abc.def\r\nAccept: */*", "Authorization: [hidden]\r\nAccept: */*"),
        ("{'Authorization': 'Bearer x y', 'Accept': '*/*'}", "{'Authorization': '[hidden]', 'Accept': '*/*'}"),
        ('{"password":"x","page":2}', '{"password":"[hidden]","page":2}'),
        ("postgresql://bots:x@db.example:5432/bots", "postgresql://bots:[hidden]@db.example:5432/bots"),
        ("/login?password=x&page=2", "/login?password=[hidden]&page=2"),
    ],
)  # fmt: skip
def test_what_stands_around_a_secret_stays_readable(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@pytest.mark.parametrize(
    "address",
    [
        "postgres://u:{}@h",
        "postgresql+asyncpg://bots:{}@db.example:5432/bots?ssl=require",
        "redis://:{}@10.0.0.1/0",
        "https://ann%40x:{}@[::1]:8080/path",
        "could not connect to 'amqp://u:{}@h/', retrying",
        '{{"url": "socks5://u:{}@h:1080"}}',
    ],
)
@pytest.mark.parametrize(
    "password",
    [
        "hunter2",
        "p@ssw0rd",
        "a:b:c",
        "p%40ss%3Aw%2Frd",
        "-._~!$&()*+,;=",
        "it's-mine",
        "q?#[x]",
        "пароль",
        "{}|^`<>",
        "1234",
    ],
)
def test_a_password_in_an_address_is_hidden_and_its_host_stays(address: str, password: str) -> None:
    before, after = address.replace("{{", "{").replace("}}", "}").split("{}")
    assert clean_text(f"{before}{password}{after}") == f"{before}[hidden]{after}"


@pytest.mark.parametrize(
    "name", ["password", "passwd", "pwd", "secret", "token", "client_secret", "access_token"]
)
@pytest.mark.parametrize("value", ["hunter2", "a,b;c", "p w", "x}y]z)", "q&r", "[hidden", "it is mine"])
def test_a_secret_in_json_or_a_dict_is_hidden_to_its_closing_quote(name: str, value: str) -> None:
    document = {name: value, "page": 2}
    for text in (json.dumps(document), json.dumps(document, separators=(",", ":")), repr(document)):
        cleaned = clean_text(text)
        assert cleaned == text.replace(value, "[hidden]")


@pytest.mark.parametrize("value", ['say "x"-secret', r"back\slash-secret", "it's-secret"])
def test_a_secret_with_quotes_in_it_is_hidden_whole(value: str) -> None:
    for text in (json.dumps({"password": value}), repr({"password": value})):
        assert "-secret" not in clean_text(text)


@pytest.mark.parametrize(
    "text",
    ["DB_PASSWORD=hunter2", "PGPASSWORD=hunter2 psql", "GITHUB_TOKEN=hunter2", "export MY_API_KEY='hunter2'"],
)
def test_a_secret_in_an_environment_variable_is_hidden(text: str) -> None:
    assert "hunter2" not in clean_text(text)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\x00b", "ab"),
        ("\x00", ""),
        ("a\ud800b\udfffc", "abc"),
        ("\ud83d\ude00", ""),
        ("😀 naïve Ünïcödé \n\t", "😀 naïve Ünïcödé \n\t"),
    ],
)
def test_what_postgres_cannot_store_is_taken_out(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@pytest.mark.parametrize("hole", ["\x00", "\ud800"])
def test_a_secret_is_hidden_though_it_was_torn_by_what_is_taken_out(hole: str) -> None:
    assert TOKEN not in clean_text(f"/bot123456789:{TOKEN[:9]}{hole}{TOKEN[9:]}/getMe")


@pytest.mark.parametrize("limit", [1, 10, NAME_LIMIT, TEXT_LIMIT])
def test_a_text_at_its_limit_stays_and_a_longer_one_is_cut_and_says_so(limit: int) -> None:
    assert clean_text("x" * limit, limit) == "x" * limit
    assert clean_text("x" * (limit + 1), limit) == "x" * (limit - 1) + "…"


def test_a_text_has_2000_characters_and_a_name_200() -> None:
    assert len(clean_text("é" * 5_000)) == TEXT_LIMIT == 2_000
    assert len(clean_name("é" * 5_000)) == NAME_LIMIT == 200


def test_a_name_is_cleaned_as_a_text_is() -> None:
    assert clean_name(f"GET /bot{BOT_TOKEN}/getMe\x00") == "GET /bot[hidden]/getMe"


@pytest.mark.parametrize("secret", [f"/bot{BOT_TOKEN}/getMe", f"postgres://u:{TOKEN}@h", f"Bearer {TOKEN}"])
@pytest.mark.parametrize("filler", [" ", "\n", "."])
def test_no_cut_lets_a_part_of_a_secret_through(filler: str, secret: str) -> None:
    """Hiding shortens a text, so that what was far beyond the limit may end up within it."""
    hidden_first = f"'password': '{'x' * 11_500}', "
    for shown in range(1, len(secret)):
        start = 4 * TEXT_LIMIT + 4_000 - shown
        text = hidden_first.ljust(start, filler) + secret + filler * 10
        assert TOKEN[:3] not in clean_text(text)


def test_cleaning_a_cut_text_again_changes_nothing() -> None:
    hidden_first = f"'password': '{'x' * 11_500}' "
    for width in range(16):
        once = clean_text(f"{hidden_first}{'.' * width}{'token=x ' * 100}")
        assert clean_text(once) == once


def test_a_secret_across_the_limit_is_hidden() -> None:
    for start in range(TEXT_LIMIT - 60, TEXT_LIMIT):
        assert TOKEN[:1] not in clean_text("." * start + f"/bot{BOT_TOKEN}/getMe" + "." * 3_000)


PIECES = [
    "Authorization", "Bearer ", "Basic ", "token", "password", "cookie", "api_key", ": ", "=", "'", '"', "\\",
    ", ", "[hidden]", "[hid", "]", "…", "://", "u:p@", "@", BOT_TOKEN, "12345678", "abcdefgh", " ", "\n", "/",
]  # fmt: skip
pieces = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(st.text(max_size=60) | pieces, st.sampled_from([1, 5, 20, 60, TEXT_LIMIT]))
@example("Authorization: Bearer abc.def.ghi", TEXT_LIMIT)
@example(f"token={BOT_TOKEN}", TEXT_LIMIT)
def test_cleaning_again_changes_nothing(text: str, limit: int) -> None:
    once = clean_text(text, limit)
    # The mark of a cut may stand right behind a hidden value, and is then taken for a part of it.
    assert clean_text(once, limit).rstrip("…") == once.rstrip("…")


@given(st.text(st.characters(), max_size=100), st.sampled_from([1, 5, 50, TEXT_LIMIT]))
@example("\ud800\x00", 1)
def test_the_result_can_always_be_stored(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert "\x00" not in cleaned
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned
    assert len(cleaned) <= limit


@given(st.text(string.ascii_lowercase + string.digits + " .,()-/\n", max_size=300))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    """Without a colon, an equals sign or a quote nothing names a secret, save a scheme and its value."""
    words = text.replace("bearer", "").replace("basic", "")
    assert clean_text(words) == words


@pytest.mark.parametrize(
    "text",
    [
        "HTTP 503 Service Unavailable (https://api.example.org:8443/v1/users/101?page=2)",
        "timed out after 30.0 s: 10.0.0.1:5432",
        "at 2024-01-31 12:34:56.789012+00:00 in /srv/app/bot.py:123",
        "tokens: 12, passwords: none kept",
        "ratio 123456:789 of user@example.org",
        "see mailto:ann@example.org or https://example.org/@ann",
        "https://example.org:8080/users/@me",
        "{'chat_id': 123456789, 'text': 'hi'}",
    ],
)
def test_ordinary_errors_stay_as_they_are(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "x", " ", "\x00", "\ud800", "1", "123456:", "://", "://a:", "://a:b@", "a:b@", "token", "token=", "token ",
        'password":"', "Authorization: ", "authorization\n", "cookie\\", "bearer ", "bot1234567:abc", "'", '"', "\\", "'\\",
    ],
)  # fmt: skip
def test_a_huge_nasty_text_is_cleaned(piece: str) -> None:
    """The time limit of a test is the only clock: a search that runs away does not end in it."""
    text = piece * (1_000_000 // len(piece))
    assert len(clean_text(text)) <= TEXT_LIMIT
    assert len(clean_text(text, 250_000)) <= 250_000


@pytest.mark.parametrize(
    ("attempt", "stored"),
    [
        (2, 2),
        (3, 3),
        (32_767, 32_767),
        (10**9, 32_767),
        (1, None),
        (0, None),
        (-4, None),
        (None, None),
        ("2", None),
    ],
)
def test_the_number_of_an_attempt_fits_its_column_and_a_first_one_has_none(
    attempt: object, stored: int | None
) -> None:
    assert clean_attempt(attempt) == stored
