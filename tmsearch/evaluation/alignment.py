"""What was said and what was heard, word by word: where they agree and how they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

import jiwer

from tmsearch.data.text_normalizer import normalizer

Kind = Literal["equal", "substitute", "delete", "insert"]


@dataclass(frozen=True)
class AlignedSpan:
    """Words in a row of one kind: `said` is empty for an insertion, `heard` for a deletion."""

    kind: Kind
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def align(reference: str, hypothesis: str, language: str) -> tuple[AlignedSpan, ...]:
    """The alignment that the WER counts: of the normalised texts, with the fewest edits."""
    normalise = normalizer(language)
    said, heard = normalise(reference).split(), normalise(hypothesis).split()
    if not said:  # jiwer takes no empty reference
        return (AlignedSpan("insert", (), tuple(heard)),) if heard else ()
    found = jiwer.process_words(" ".join(said), " ".join(heard))
    return tuple(
        AlignedSpan(
            cast(Kind, chunk.type),
            tuple(said[chunk.ref_start_idx : chunk.ref_end_idx]),
            tuple(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in found.alignments[0]
    )


def confusions(alignments: Iterable[tuple[AlignedSpan, ...]]) -> list[tuple[str, str, int]]:
    """Pairs of words (said, heard) and how often one was taken for the other, the most frequent first.

    A deleted word was heard as "", an inserted one said as "".
    """
    found: Counter[tuple[str, str]] = Counter()
    for pieces in alignments:
        for piece in pieces:
            if piece.kind == "substitute":
                found.update(zip(piece.reference, piece.hypothesis, strict=True))
            elif piece.kind == "delete":
                found.update((word, "") for word in piece.reference)
            elif piece.kind == "insert":
                found.update(("", word) for word in piece.hypothesis)
    return [(said, heard, count) for (said, heard), count in sorted(found.items(), key=lambda one: (-one[1], one[0]))]
