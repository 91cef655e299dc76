"""Letters that only look like those around them, back into the script of their word.

A word's letters may be written in several scripts at once only by disguise, so for each word the
scripts are found in which *all* of its letters have a form, its own or a look-alike. The script
in which most of a text's letters could be written that way is the text's own: disguised English
could all be Latin and little of it Cyrillic, Russian the other way round, however many letters
were exchanged. That choice, and all others here, look at classes of look-alikes and not at which
member stands in the text, so a folded text is folded the same way again.

Rule 1: a word of several scripts that the text's script can write is folded into it; else into
the one of its own scripts that can write it; else it stays.
Rule 2: a word of one other script that the text's script can write too (`асе`) is folded only
where the mixed words outweigh such words: plain foreign words stay in a text that is not
disguised.
Rule 3: punctuation and signs of no script, or of one in which the text has no word, become the
ASCII sign they look like (quotation marks, hyphens, primes), never one that means something in
mark-up; ASCII signs and digits stay.

Source: Unicode Technical Standard 39, sections 4 and 5 (resolved script sets); the rules are this
project's.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from watermark.text.canonical.tables import COMMON, INHERITED, lookalikes, scripts

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

# Written without spaces between words, and so never one word with what stands beside them.
_UNSPACED: Final = frozenset(
    {"HAN", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR"}
)
_NO_SCRIPT: Final = frozenset({COMMON, INHERITED, "UNKNOWN"})
_SAFE_SIGNS: Final = frozenset("'\"-,.:;!?/()%$+=")
_LETTER, _GAP, _SIGN = "l", " ", "s"
_WORD: Final = re.compile(f"{_LETTER}+")


class _Kinds(dict[int, str]):
    """Code point -> part of a word, a gap between words, or a sign that is folded."""

    def __missing__(self, code: int) -> str:
        kind = self[code] = _kind(chr(code))
        return kind


def _kind(character: str) -> str:
    if not character.isascii() and _plain_sign(character) != character:
        return _SIGN
    is_letter = unicodedata.category(character)[0] in "LMN"
    return _LETTER if is_letter and scripts().of(character) not in _UNSPACED else _GAP


_KINDS: Final = _Kinds()


@lru_cache(maxsize=1 << 13)
def _plain_sign(character: str) -> str:
    """Return the ASCII sign that a sign looks like, or the character itself (rule 3)."""
    category = unicodedata.category(character)
    if not (category[0] in "PS" or category == "Lm"):
        return character
    plain = (other for other in lookalikes().get(character, ()) if other in _SAFE_SIGNS)
    return next(plain, character)


@lru_cache(maxsize=1 << 15)
def _forms(character: str) -> Mapping[str, str] | None:
    """Return a letter's form in every script that has one, or None where any script will do."""
    script = scripts().of(character)
    if script in _NO_SCRIPT:
        return None
    forms = {script: character}
    category = unicodedata.category(character)
    others = [one for one in lookalikes().get(character, ()) if _is_letter(one)]
    # Of the same case where there is one, then small, then the first in Unicode's order.
    others.sort(key=lambda one: (unicodedata.category(one) != category, one.isupper(), one))
    for other in others:
        forms.setdefault(scripts().of(other), other)
    return {name: form for name, form in forms.items() if name not in _NO_SCRIPT}


def _is_letter(character: str) -> bool:
    return unicodedata.category(character) in ("Ll", "Lu", "Lo", "Lt")


@dataclass(frozen=True, slots=True)
class _Word:
    """A word in decomposed form, and the scripts it has to do with.

    Attributes:
        letters: Number of letters that belong to a script.
        own: Letters of each script it is written in.
        possible: Scripts in which all of it could be written.
    """

    text: str
    letters: int
    own: Mapping[str, int]
    possible: frozenset[str]

    @property
    def is_mixed(self) -> bool:
        return len(self.own) > 1


@lru_cache(maxsize=1 << 15)
def _look_at(text: str) -> _Word:
    decomposed = unicodedata.normalize("NFD", text)
    forms = [one for one in map(_forms, decomposed) if one is not None]
    own = Counter(scripts().of(one) for one in decomposed if _forms(one) is not None)
    possible = frozenset.intersection(*map(frozenset, forms)) if forms else frozenset[str]()
    return _Word(decomposed, len(forms), own, possible)


def fold_lookalikes(texts: Iterable[str]) -> list[str]:
    """Return the parts of one text with disguised letters and signs exchanged, in linear time.

    Args:
        texts: Parts that share one script, as after `clean_characters`.
    """
    parts = list(texts)
    if all(part.isascii() for part in parts):
        return parts
    kinds = [part.translate(_KINDS) for part in parts]
    counts = Counter(
        part[found.start() : found.end()]
        for part, kind in zip(parts, kinds, strict=True)
        for found in _WORD.finditer(kind)
    )
    words = {text: _look_at(text) for text in counts}
    exchange = _exchange(words, counts)
    written = {name for text, word in words.items() if text not in exchange for name in word.own}
    signs = _signs(frozenset().union(*parts), written)
    return [
        _apply(part, kind, exchange).translate(signs)
        for part, kind in zip(parts, kinds, strict=True)
    ]


def _exchange(words: Mapping[str, _Word], counts: Mapping[str, int]) -> dict[str, str]:
    """Return the new form of every word that gets one."""
    script = _script_of(words, counts)
    if script is None:
        return {}
    foreign = {
        text: word
        for text, word in words.items()
        if script in word.possible and set(word.own) != {script}
    }
    mixed = sum(word.letters * counts[text] for text, word in foreign.items() if word.is_mixed)
    pure = sum(word.letters * counts[text] for text, word in foreign.items() if not word.is_mixed)
    exchange = {}
    for text, word in words.items():
        if text in foreign and (word.is_mixed or mixed >= pure):
            exchange[text] = _write(word, script)
        elif word.is_mixed and script not in word.possible:
            own = sorted(word.possible.intersection(word.own))
            exchange[text] = _write(word, own[0]) if own else text
    return exchange


def _script_of(words: Mapping[str, _Word], counts: Mapping[str, int]) -> str | None:
    """Return the script that could write most of the text's letters, or None without letters."""
    possible, own = Counter[str](), Counter[str]()
    for text, word in words.items():
        for name in word.possible:
            possible[name] += word.letters * counts[text]
        for name, letters in word.own.items():
            own[name] += letters * counts[text]
    return max(possible, key=lambda name: (possible[name], own[name], name), default=None)


def _write(word: _Word, script: str) -> str:
    letters: list[str] = []
    for one in word.text:
        forms = _forms(one)
        form = one if forms is None else forms[script]
        if form != one and form.isupper() and letters and letters[-1].islower():
            form = _small(form, script)
        letters.append(form)
    return unicodedata.normalize("NFC", "".join(letters))


@lru_cache(maxsize=1 << 10)
def _small(letter: str, script: str) -> str:
    """Return the small look-alike of a capital, `l` for `I`, or itself where there is none."""
    others = (one for one in lookalikes().get(letter, ()) if scripts().of(one) == script)
    return next((one for one in others if one.islower()), letter)


def _apply(text: str, kinds: str, exchange: Mapping[str, str]) -> str:
    pieces, done = [], 0
    for found in _WORD.finditer(kinds):
        word = text[found.start() : found.end()]
        if word in exchange:
            pieces += [text[done : found.start()], exchange[word]]
            done = found.end()
    pieces.append(text[done:])
    return "".join(pieces)


def _signs(characters: Iterable[str], written: Container[str]) -> dict[int, str]:
    """Return the signs that are exchanged in a text with words in the scripts `written`."""
    return {
        ord(one): _plain_sign(one)
        for one in characters
        if _KINDS[ord(one)] == _SIGN and scripts().of(one) not in written
    }
