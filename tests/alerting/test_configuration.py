from __future__ import annotations

from pathlib import Path

import pytest

from breaker_store.alerting.configuration import Format, find_webhooks
from breaker_store.core.alerting import AlertKind
from breaker_store.errors import ConfigurationError

from .making import SECRET

URL = "https://user:pass@hooks.example.com/services/T0/hidden?token=hidden"
LEAST = f'name = "team"\nurl = "{URL}"\nsecret = "{SECRET}"\n'


@pytest.fixture
def write(tmp_path: Path):
    def write(*webhooks: str, more: str = "") -> Path:
        path = tmp_path / "webhooks.toml"
        path.write_text(more + "".join(f"[[webhook]]\n{webhook}\n" for webhook in webhooks))
        return path

    return write


def test_a_webhook_needs_a_name_an_address_and_a_secret(write):
    [webhook] = find_webhooks(write(LEAST))

    assert (webhook.name, webhook.url, webhook.secret) == ("team", URL, SECRET)
    assert (webhook.format, webhook.kinds, webhook.group_seconds) == (Format.EVENT, frozenset(AlertKind), 5.0)


def test_everything_can_be_chosen(write):
    chosen = 'name = "c"\nurl = "http://c"\nformat = "chat"\nkinds = ["tripped"]\ngroup_seconds = 30'

    [webhook] = find_webhooks(write(chosen))

    assert (webhook.format, webhook.kinds) == (Format.CHAT, frozenset({AlertKind.TRIPPED}))
    assert (webhook.secret, webhook.group_seconds) == (None, 30.0)


def test_addresses_and_secrets_may_stand_in_the_environment(write):
    path = write('name = "team"\nurl_env = "HOOK"\nsecret_env = "KEY"')

    [webhook] = find_webhooks(path, {"HOOK": URL, "KEY": SECRET})

    assert (webhook.url, webhook.secret) == (URL, SECRET)


def test_of_a_webhook_nothing_is_shown_but_its_name_and_host(write):
    [webhook] = find_webhooks(write(LEAST))

    shown = f"{webhook} {webhook!r} {webhook.host}"
    assert webhook.host == "hooks.example.com"
    for hidden in (SECRET, "hidden", "pass", "services"):
        assert hidden not in shown


def test_without_a_file_there_are_no_webhooks():
    assert find_webhooks(None, {}) == []


def test_the_environment_may_name_the_file(write):
    [webhook] = find_webhooks(None, {"BREAKER_STORE_WEBHOOKS": str(write(LEAST))})

    assert webhook.name == "team"


@pytest.mark.parametrize(
    ("webhook", "trouble"),
    [
        ('url = "http://a"', "webhook 1: name: is needed"),
        ('name = "a b"', "webhook 1: name: is needed"),
        ("name = 5", "webhook 1: name: is needed"),
        ('name = "a"', "webhook 'a': url: is needed, or url_env"),
        ('name = "a"\nurl = "ftp://secret"', "webhook 'a': url: is an address that begins with https://"),
        ('name = "a"\nurl = "http://"', "webhook 'a': url: is an address"),
        ('name = "a"\nurl = "http://a:port"', "webhook 'a': url: is an address"),
        ('name = "a"\nurl = "http://a/ b"', "webhook 'a': url: is an address"),
        ('name = "a"\nurl = 5', "webhook 'a': url: is a text"),
        ('name = "a"\nurl = "http://a"', "webhook 'a': secret: is needed, or secret_env"),
        ('name = "a"\nurl = "http://a"\nsecret = "hunter2"', "webhook 'a': secret: is 24 to 64 bytes"),
        ('name = "a"\nurl = "http://a"\nsecret = "aGk="', "webhook 'a': secret: is 24 to 64 bytes"),
        (
            'name = "a"\nurl = "http://a"\nsecret_env = "NO"',
            "webhook 'a': secret_env: the environment has no NO",
        ),
        (f'{LEAST}secret_env = "KEY"', "webhook 'team': secret: secret and secret_env exclude each other"),
        (f"{LEAST}colour = 1", "webhook 'team': colour: there is no such key"),
        (f'{LEAST}format = "xml"', "webhook 'team': format: is one of event, chat, alertmanager"),
        (f"{LEAST}format = []", "webhook 'team': format: is one of event"),
        (f'{LEAST}kinds = ["opened"]', "webhook 'team': kinds: is a list of some of tripped, recovered"),
        (f"{LEAST}kinds = []", "webhook 'team': kinds: is a list"),
        (f'{LEAST}kinds = "tripped"', "webhook 'team': kinds: is a list"),
        (f"{LEAST}group_seconds = -1", "webhook 'team': group_seconds: is a number from 0 to 3600"),
        (f"{LEAST}group_seconds = true", "webhook 'team': group_seconds: is a number"),
        (f"{LEAST}group_seconds = nan", "webhook 'team': group_seconds: is a number"),
    ],
)
def test_what_makes_no_sense_is_an_error_that_names_file_and_key_and_shows_no_value(write, webhook, trouble):
    path = write(webhook)

    with pytest.raises(ConfigurationError) as raised:
        find_webhooks(path, {"KEY": SECRET})

    assert str(raised.value).startswith(f"{path}: {trouble}")
    for hidden in (SECRET, "hunter2", "hidden", "aGk="):
        assert hidden not in str(raised.value)


def test_two_webhooks_of_one_name_are_an_error(write):
    with pytest.raises(ConfigurationError, match="name: there are two webhooks 'team'"):
        find_webhooks(write(LEAST, LEAST))


def test_another_key_beside_the_webhooks_is_an_error(write):
    with pytest.raises(ConfigurationError, match="'retries' is no key of this file"):
        find_webhooks(write(LEAST, more="retries = 5\n"))


@pytest.mark.parametrize("text", ["webhook = 5", "[webhook]\nname = 'a'", "webhook = [1]"])
def test_anything_but_a_list_of_webhooks_is_an_error(tmp_path, text):
    path = tmp_path / "w.toml"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="with two brackets"):
        find_webhooks(path)


def test_a_file_that_cannot_be_read_is_an_error_that_shows_none_of_it(tmp_path):
    path = tmp_path / "w.toml"
    path.write_text(f'[[webhook]]\nsecret = "{SECRET}\n')
    with pytest.raises(ConfigurationError) as raised:
        find_webhooks(path)
    assert SECRET not in str(raised.value)
    assert "line 2" in str(raised.value)

    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"w\.toml"):
        find_webhooks(path)
    with pytest.raises(ConfigurationError, match="No such file"):
        find_webhooks(tmp_path / "none")
