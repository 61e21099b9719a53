"""Charts of the knobs: what is drawn, on which axes."""

from tmsearch.report import knob_charts
from tmsearch.report.records import KnobSlice, KnobSlices, TrialRow

ROW = TrialRow(0, "finished", {}, "", ((4, 0.5),), 1.0)


def slices(*knobs):
    return KnobSlices("step 4", ((ROW, 0.5),), (("demo/nano", None),), knobs)


def test_every_knob_is_drawn_beside_the_others_on_one_scale_of_errors():
    rate = KnobSlice("learning_rate", True, None, ((1e-5, 0.5), (1e-3, 0.4)))
    model = KnobSlice("model", False, ("a/<b>", "a/c"), (("a/c", 0.5), ("a/<b>", 0.4)))
    chart = knob_charts.every_knob(slices(rate, model))
    first, second = chart["data"]
    assert (first["x"], first["y"], first["xaxis"], first["yaxis"]) == ([1e-5, 1e-3], [0.5, 0.4], "x", "y")
    assert (second["x"], second["xaxis"], second["yaxis"]) == (["c", "&lt;b&gt;"], "x2", "y2")
    layout = chart["layout"]
    assert layout["xaxis"]["type"] == "log"
    assert layout["xaxis2"]["categoryarray"] == ["&lt;b&gt;", "c"]
    assert layout["xaxis"]["domain"][1] < layout["xaxis2"]["domain"][0]
    assert layout["yaxis2"]["matches"] == "y"
    assert knob_charts.every_knob(slices()) is None
