"""Which clip was spoken after which."""

from tmsearch.data.corpus import Clip
from tmsearch.features.sequence import Sequences


def clip(name, group=(), source="", start=None, seconds=2.0):
    return Clip(name, "text", seconds, ("text", *group), source=source, start=start)


def test_parts_of_a_file_follow_by_their_offsets_with_the_pause_between_them():
    parts = [
        clip("a@10", source="a", start=10.0),
        clip("a@0", source="a", start=0.0),
        clip("a@2.5", source="a", start=2.5),
    ]
    sequences = Sequences(parts)
    assert sequences.following == {"a@0": ("a@2.5", 0.5), "a@2.5": ("a@10", None)}  # across 5.5 s nothing is known
    assert sequences.preceding == {"a@2.5": ("a@0", 0.5), "a@10": ("a@2.5", None)}


def test_clips_of_a_session_follow_by_the_numbers_in_their_names():
    session = ("session_id=7",)
    clips = [clip("c10", session), clip("c9", session), clip("x", ("session_id=8",)), clip("y", ("speaker=z",))]
    assert Sequences(clips).following == {"c9": ("c10", None)}


def test_parts_that_overlap_follow_without_a_pause():
    parts = [clip("a", source="f", start=0.0, seconds=3.0), clip("b", source="f", start=2.0)]
    assert Sequences(parts).following == {"a": ("b", 0.0)}
