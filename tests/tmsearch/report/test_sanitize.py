"""Other people's text is shown as text on a page, whatever it holds."""

import json

from tmsearch.report import sanitize


def test_what_hides_is_shown():
    assert sanitize.visible("a\x00b\u202ec\ud800") == "a\\x00b\\u202ec\\ud800"
    for text in ("\u05e9\u05dc\u05d5\u05dd", "\U0001f469\u200d\U0001f680", "don't", "\u4e2d\u6587"):
        assert sanitize.visible(text) == text
    assert sanitize.label("<b>" + "x" * 100) == "&lt;b&gt;" + "x" * 56 + "\u2026"
    assert "<" not in sanitize.script_json({"a": "</script>&"})
    assert json.loads(sanitize.script_json({"a": "</script>&\u2028"})) == {"a": "</script>&\u2028"}
