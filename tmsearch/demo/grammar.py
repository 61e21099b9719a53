"""A small grammar of radio phrases: seeded, distinct sentences of five to eleven words."""

from __future__ import annotations

import random
import re

RULES = """
name: Alpha | Bravo | Charlie | Delta | Echo | Foxtrot | Golf | Hotel | India | Juliet | Kilo | Lima | Mike | November
name: Oscar | Papa | Quebec | Romeo | Sierra | Tango | Uniform | Victor | Whiskey | Yankee | Zulu
name: Falcon | Raven | Anvil | Hammer | Shadow | Nomad | Viper
d: zero | one | two | three | four | five | six | seven | eight | nine
call: {name} {d}
place: the bridge | the north gate | the harbour | the old mill | the river | the tower | the main road | the tunnel
place: the station | the airfield | the school | the east wall | the market | the ridge | the depot
thing: water | fuel | more time | a medic | two drivers | new batteries | support | a radio check | an escort
thing: a ladder | clearance | the map | more light | a tow truck
state: all clear | on the move | low on fuel | waiting for orders | in position | ready to go | under repair
state: out of contact | back on air | short of water | holding here | heading home
sight: smoke | a white van | three people | a small boat | a broken fence | an open door | heavy traffic | a red light
sight: no movement | two trucks | a lost dog | fresh tracks
order: move to {place} | return to {place} | hold at {place} | meet me at {place} | check {place}
order: stay away from {place} | turn left at {place} | report from {place}
time: now | in {d} minutes | at {d} {d} hundred | before dark | after noon | as soon as you can
closing: over | out | please confirm | say again | do you copy | acknowledge
sentence: {call}, this is {call}, {closing}. | {call}, {order} {time}. | {call}, this is {name}, I need {thing}.
sentence: {call}, we see {sight} near {place}. | Heading {d} {d} {d}, speed {d} {d}, {closing}.
sentence: {call} is {state}, {closing}. | We are {state} at {place}. | Request {thing} at {place}, {closing}.
sentence: Channel {d} {d} is {state}. | {call}, send {thing} to {place}. | I see {sight} behind {place}, {closing}.
sentence: {call}, your signal is {d} by {d}, {closing}. | {order} and wait for {call}. | Negative, {name}, {order}.
sentence: Roger, {call}, {order} {time}. | We have {sight} and {sight}, {closing}. | Team {d} is {state} {time}.
sentence: Copy, {thing} for {call} {time}.
"""

_SLOT = re.compile(r"{(\w+)}")


def _choices() -> dict[str, list[str]]:
    """The alternatives of every slot, in the order of RULES."""
    choices: dict[str, list[str]] = {}
    for line in RULES.strip().splitlines():
        slot, _, alternatives = line.partition(": ")
        choices.setdefault(slot, []).extend(alternatives.split(" | "))
    return choices


CHOICES = _choices()


def sentence(rng: random.Random) -> str:
    """One phrase as written text, with capitals and punctuation."""
    text = rng.choice(CHOICES["sentence"])
    while (slot := _SLOT.search(text)) is not None:
        text = text[: slot.start()] + rng.choice(CHOICES[slot[1]]) + text[slot.end() :]
    return text[0].upper() + text[1:]


def sentences(count: int, seed: int) -> list[str]:
    """`count` distinct phrases of 5 to 11 words; of one seed, a shorter list is the start of any longer one."""
    rng = random.Random(seed)
    texts: dict[str, None] = {}  # an ordered set
    while len(texts) < count:
        text = sentence(rng)
        if 5 <= len(text.split()) <= 11:
            texts.setdefault(text)
    return list(texts)
