"""Paths with any character: what a message shows is pasted into a real shell and read by Hydra."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ssat.commands.analyze import _listed
from ssat.config.overrides import composed
from ssat.config.quoting import quoted, typed
from ssat.config.resolve import resolve
from ssat.core.errors import UserError
from ssat.core.options import read_options, unquoted

NAMES = (
    "/t/plain",
    "/t/a=b",
    "/t/a b",
    " /t/leading",
    "/t/trailing ",
    "/t/größe/日本",
    "/t/a(b)",
    "/t/a,b",
    "[x]",
    "{x}",
    "/t/it's",
    '/t/say "hi"',
    "/t/x'\"y",
    "/t/~x",
    "/t/a$b",
    "/t/$HOME",
    "/t/${x}",
    "/t/\\${x}",
    "\\\\srv\\x",
    "/t/end\\",
    "/t/a#b;c&d!e",
    "12",
    "null",
    "1e3",
)
WORDS = ["data=image_folder", "encoder=vit_micro"]


def pasted(text: str) -> list[str]:
    """The words that a shell makes of `text`."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def refused(words: list[str]) -> str:
    with pytest.raises(UserError) as raised:
        resolve(composed([*WORDS, *words]))
    return str(raised.value)


def test_the_typed_form_of_any_name_reaches_the_configuration_as_it_is() -> None:
    words = pasted(" ".join(typed("data.root", name) for name in NAMES))
    assert len(words) == len(NAMES)
    assert [composed([*WORDS, word]).data.root for word in words] == [*NAMES]


def test_a_plain_name_is_not_quoted() -> None:
    assert typed("data.root", "my/images-2_a.b") == "data.root=my/images-2_a.b"


@pytest.mark.parametrize("name", ["/t/a=b", "/t/größe", "/t/it's (1)", "/t/a,b", " /t/a", "~/t"])
def test_a_refused_path_names_the_form_that_works(name: str) -> None:
    message = refused([f"data.root={name}"])
    (word,) = pasted(message[message.rindex(typed("data.root", name)) :].partition(" where ")[0].partition(" for ")[0])
    assert composed([*WORDS, word]).data.root == str(Path(name).expanduser())


def test_an_unknown_interpolation_says_how_these_characters_are_written() -> None:
    assert r"\${...}" in refused(["data.root=/t/${nowhere}"])


def test_blanks_that_the_shell_has_split_at_are_put_together() -> None:
    assert refused(["data.root=/t/a", "b", "c"]).endswith("write 'data.root=/t/a b'")
    with pytest.raises(UserError, match="write 'run=a b'"):
        read_options(["run=a", "b"], {"run": "<folder>"})
    with pytest.raises(UserError, match=r"did you mean force\?\)"):
        read_options(["run=a", "forc"], {"run": "<folder>"}, names=("force",))


def test_quotes_of_hydra_are_read_by_the_other_commands_too() -> None:
    assert [unquoted(quoted(name)) for name in NAMES if "${" not in name] == [n for n in NAMES if "${" not in n]
    assert read_options(['run="a=b"'], {"run": "<folder>"}).values == {"run": "a=b"}
    assert unquoted("it's") == "it's" and unquoted('"') == '"'


def test_a_list_of_runs_may_hold_a_comma_in_quotes() -> None:
    assert _listed('[a b/1, "c, d" ,\'e,"f\',g=h]') == ["a b/1", "c, d", 'e,"f', "g=h"]
    assert _listed("a,b") == ["a", "b"]


@pytest.mark.parametrize("encoder", ["vit_t", "swin_t", "cvt_13", "resnet_50"])
def test_a_size_that_is_no_square_is_refused_in_one_sentence(encoder: str) -> None:
    message = refused([f"encoder={encoder}", "data.img_size=[32,16]"])
    assert message.startswith("data.img_size=[32, 16] is not possible, networks see squares: give one side")
    assert "data.img_size=32;" in message
