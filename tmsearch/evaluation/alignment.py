"""Reference and hypothesis aligned word by word: where they agree and how they differ."""

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
    """Words in a row of one kind: `reference` is empty for an insertion, `hypothesis` for a deletion."""

    kind: Kind
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


def align(reference: str, hypothesis: str, language: str, rule: str | None = None) -> tuple[AlignedSpan, ...]:
    """The alignment with the fewest edits of the normalized texts, which is the one that the WER counts."""
    normalize = normalizer(language, rule)
    reference_words = normalize(reference).split()
    hypothesis_words = normalize(hypothesis).split()
    if not reference_words:  # jiwer takes no empty reference
        return (AlignedSpan("insert", (), tuple(hypothesis_words)),) if hypothesis_words else ()
    aligned = jiwer.process_words(" ".join(reference_words), " ".join(hypothesis_words))
    return tuple(
        AlignedSpan(
            cast(Kind, chunk.type),
            tuple(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            tuple(hypothesis_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in aligned.alignments[0]
    )


def confusions(alignments: Iterable[tuple[AlignedSpan, ...]]) -> list[tuple[str, str, int]]:
    """Pairs of a reference word and the word it was taken for, with their count, the most frequent first.

    The hypothesis word of a deletion is "", and so is the reference word of an insertion.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for spans in alignments:
        for span in spans:
            if span.kind == "substitute":
                counts.update(zip(span.reference, span.hypothesis, strict=True))
            elif span.kind == "delete":
                counts.update((word, "") for word in span.reference)
            elif span.kind == "insert":
                counts.update(("", word) for word in span.hypothesis)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [(reference, hypothesis, count) for (reference, hypothesis), count in ordered]
