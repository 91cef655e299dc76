"""Configurations that are refused, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy import config as room
from proxy.config import ProxyConfig, field_names, load_config, parse_config
from proxy.errors import ConfigError

GOOD = """
[upstream]
url = "http://127.0.0.1:8000"
[keys]
file = "KEYS.toml"
"""
MODEL = '[[model]]\nname = "m"\ntokenizer = "t.json"\nend_tokens = ["<e>"]\n'
PATH = Path("/etc/w/proxy.toml")


def test_paths_start_from_the_files_folder() -> None:
    config = parse_config(GOOD + MODEL, path=PATH)
    assert config.keys.file == "/etc/w/KEYS.toml"
    assert config.models[0].tokenizer == "/etc/w/t.json"
    assert config.state == "/etc/w"


BAD = [
    ("unknown section", GOOD + "[extra]\n", "extra"),
    ("unknown field", GOOD + "[server]\nprot = 5\n", "prot"),
    ("unknown model field", GOOD + MODEL + "temperature = 1\n", "temperature"),
    ("unknown capability", GOOD + MODEL + "[model.capabilities]\nbias = true\n", "bias"),
    ("negative port", GOOD + "[server]\nport = -1\n", "port"),
    ("large port", GOOD + "[server]\nport = 65536\n", "port"),
    ("negative limit", GOOD + "[server]\nmax_body_bytes = 0\n", "max_body_bytes"),
    ("negative tokens", GOOD + MODEL + "[model.splice]\ndraft_tokens = 0\n", "draft_tokens"),
    ("negative drafts", GOOD + MODEL + "[model.splice]\ndrafts = -1\n", "drafts"),
    ("negative seconds", GOOD + MODEL + "[model.select.limits]\nseconds = -1\n", "seconds"),
    ("no number", GOOD + MODEL + "[model.select.limits]\nseconds = nan\n", "seconds"),
    ("zero timeout", GOOD.replace("[keys]", "read_timeout_s = 0\n[keys]"), "read_timeout_s"),
    ("unknown mode", GOOD + MODEL + '[model.capabilities]\nlogprobs_mode = "x"\n', "enum"),
    ("unknown unit", GOOD + MODEL + 'unit = "words"\n', "enum"),
    ("caller in the clear", GOOD + '[disclosure]\ncallers = ["sk-1"]\n', "callers"),
    ("short digest", GOOD + '[disclosure]\ncallers = ["sha256:ab"]\n', "callers"),
    ("missing section", '[keys]\nfile = "K"\n', "upstream"),
    ("missing field", GOOD + "[[model]]\n", "name"),
    ("wrong type", GOOD + '[server]\nport = "80"\n', "port"),
    ("one model twice", GOOD + MODEL + MODEL, "one name"),
    ("no tokenizer", GOOD + '[[model]]\nname = "m"\n', "tokenizer"),
    ("no TOML", GOOD + "[server\n", "line 6"),
    ("two of one field", GOOD + "[keys]\n", "keys"),
    ("depth", GOOD + "x = " + "[" * 20_000, ""),
    *(
        (f"url {url}", GOOD.replace("http://127.0.0.1:8000", url), "url")
        for url in (
            "127.0.0.1:8000",
            "ftp://h",
            "http://",
            "http://user:secret@h",
            "http://h?x=1",
            "http://h/#f",
            "http://a b",
            "http://h:99999",
            "http://h:x",
            "http://[::1",
        )
    ),
]


@pytest.mark.parametrize(("text", "named"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_mistakes_are_named_with_the_file(text: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, path=PATH)
    message = str(caught.value)
    assert message.startswith("/etc/w/proxy.toml: ")
    assert named in message
    assert "\n" not in message
    assert "secret" not in message


@pytest.mark.parametrize("url", ["http://h", "https://h:443/base/", "http://[::1]:8000"])
def test_addresses(url: str) -> None:
    text = GOOD.replace("http://127.0.0.1:8000", url)
    assert parse_config(text, path=PATH).upstream.url == url


CONTINUED = '[[model]]\nname = "m"\nunit = "words/v1"\n[model.capabilities]\ncontinuation = "{}"\n'


@pytest.mark.parametrize("continuation", ["text", "prefix"])
def test_words_over_text_need_no_tokenizer(continuation: str) -> None:
    text = GOOD + CONTINUED.format(continuation)
    (model,) = parse_config(text, path=PATH).models
    assert not model.needs_tokenizer
    for other in (
        text.replace("words/v1", "tokenizer"),
        text.replace(f'"{continuation}"', '"token-ids"'),
    ):
        with pytest.raises(ConfigError, match="needs tokenizer"):
            parse_config(other, path=PATH)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    odd = tmp_path / "odd.toml"
    odd.write_bytes(b"\xff")
    for path in (tmp_path / "none.toml", tmp_path, odd):
        with pytest.raises(ConfigError, match="pass --config FILE"):
            load_config(path)


def test_every_field_is_listed_and_documented() -> None:
    names = field_names()
    assert len(set(names)) == len(names)
    assert {"state", "server.port", "model.select.limits.seconds", "embedded.model"} <= set(names)
    structs = [
        value
        for value in vars(room).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct)
    ]
    assert ProxyConfig in structs
    for struct in structs:
        if struct is not msgspec.Struct:
            for field in struct.__struct_fields__:
                assert f"        {field}: " in (struct.__doc__ or "") or field == "models"
                assert f"{field}: " in (struct.__doc__ or "")


@pytest.mark.parametrize(("api", "mode"), [("sglang", "tempered"), ("llama-server", "raw")])
def test_an_engines_own_endpoint_has_one_kind_of_lists(api: str, mode: str, tmp_path: Path) -> None:
    def text(said: str) -> str:
        return (
            '[upstream]\nurl = "http://u"\n[keys]\nfile = "K"\n[[model]]\nname = "m"\n'
            f'tokenizer = "t.json"\n[model.capabilities]\napi = "{api}"\nlogprobs = 9\n'
            f'logprobs_mode = "{said}"\n'
        )

    parse_config(text(mode), path=tmp_path / "proxy.toml")
    with pytest.raises(ConfigError, match=f'set logprobs_mode = "{mode}"'):
        parse_config(text("processed"), path=tmp_path / "proxy.toml")


def test_a_probe_needs_no_tokenizer_where_words_mark(tmp_path: Path) -> None:
    text = (
        '[upstream]\nurl = "http://u"\n[keys]\nfile = "K"\n[[model]]\nname = "m"\n'
        'unit = "words/v1"\n[model.capabilities]\nprobe = true\n'
    )
    assert parse_config(text, path=tmp_path / "proxy.toml").models[0].capabilities.probe
