"""A CLIP-style byte-pair tokenizer whose merges spell every known word as one token.

The files it writes (vocab.json, merges.txt, two maps) are those of Stable Diffusion 2's tokenizer:
byte-level characters, `</w>` at the end of a word, pad token `!` with id 0.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

from .vocabulary import known_words

START, END, PAD, MAX_LENGTH = "<|startoftext|>", "<|endoftext|>", "!", 77
# The pattern of CLIP's tokenizer, for lower-case Latin text: letters together, digits one by one.
_PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|[^\s\w]+|_+")


def _byte_stand_ins() -> dict[int, str]:
    """The printable character that stands for each of the 256 bytes, in the order of CLIP's vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted({*range(256)} - {*printable})
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + index) for index, byte in enumerate(others)}


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged, at = [], 0
    while at < len(symbols):
        if symbols[at:at + 2] == pair:
            merged.append(pair[0] + pair[1])
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    return tuple(merged)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, until each word is one symbol."""
    pieces = {piece for word in words for piece in _PIECES.findall(word)}
    spelled = [(*piece[:-1], piece[-1] + "</w>") for piece in sorted(pieces)]
    merges = []
    while True:
        counts = Counter(pair for symbols in spelled for pair in zip(symbols, symbols[1:]))
        if not counts:
            return merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spelled = [_merge(symbols, best) for symbols in spelled]


class Tokenizer:
    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]):
        self.vocab, self.merges = vocab, merges
        self.ranks = {pair: rank for rank, pair in enumerate(merges)}
        self.start, self.end, self.pad = vocab[START], vocab[END], vocab[PAD]
        self.stand_ins = _byte_stand_ins()
        self.word = lru_cache(maxsize=None)(self._word)

    @classmethod
    def make(cls) -> "Tokenizer":
        characters = list(_byte_stand_ins().values())
        merges = learn_merges(known_words())
        tokens = [*characters, *(c + "</w>" for c in characters), *("".join(pair) for pair in merges), START, END]
        return cls({token: index for index, token in enumerate(tokens)}, merges)

    def _word(self, piece: str) -> list[int]:
        characters = [self.stand_ins[byte] for byte in piece.encode("utf8")]
        symbols = (*characters[:-1], characters[-1] + "</w>")
        while len(symbols) > 1:
            best = min(zip(symbols, symbols[1:]), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            symbols = _merge(symbols, best)
        return [self.vocab[symbol] for symbol in symbols]

    def encode(self, text: str, length: int | None = MAX_LENGTH) -> list[int]:
        """Token ids with start and end, cut and padded to `length` (not padded if that is None)."""
        ids = [token for piece in _PIECES.findall(text.lower()) for token in self.word(piece)]
        ids = [self.start, *ids[:(length or MAX_LENGTH) - 2], self.end]
        return ids if length is None else ids + [self.pad] * (length - len(ids))

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        special = {"lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        named = {"bos_token": {"content": START, **special}, "eos_token": {"content": END, **special},
                 "unk_token": {"content": END, **special}, "pad_token": PAD}
        config = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": MAX_LENGTH,
                  "tokenizer_class": "CLIPTokenizer", **named}
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        (folder / "vocab.json").write_text(json.dumps(self.vocab, ensure_ascii=False), "utf8")
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf8")
        (folder / "special_tokens_map.json").write_text(json.dumps(named, indent=2) + "\n", "utf8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf8")
