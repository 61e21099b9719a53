"""The report in a browser: charts with marks, clips that play, sorting, telephones, the dark, and hostile text."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.support.browser import chromium, console_messages
from tests.support.study_builder import Plan, random_study
from tmsearch.cli.services.report.study_report import page

RAN = "window.ran = 1"
EVIL = (
    f"</script><script>{RAN}</script><img src=x onerror='{RAN}'>\"'`><svg/onload={RAN}>{{{{7*7}}}} \u202eevil\u2066 "
    "\U0001f3a4\U0001f469\u200d\U0001f680 &lt;b&gt; \x00\x1b[31m"
)
ENDLESS = "y" * 5000 + " " + "z " * 2500  # 10,001 characters, half of them one word


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Files: of a finished study, of one that runs, and of one whose every text is hostile."""
    pages = {}
    plans = {
        "finished": Plan(configurations=18, validation=30, clips=50, seconds=0.6),
        "running": Plan(configurations=3, clips=20, validation=4, running=True),
        "hostile": Plan(
            study=EVIL.replace("\x00", ""),
            clips=14,
            validation=4,
            configurations=4,
            seconds=0.4,
            hypothesis=ENDLESS,
            texts={index: f"{index} {EVIL}".replace("\x00", "") for index in range(14)},
            names={index: f"{index}<img src=x onerror={RAN}>\u202e'\"&.flac".replace("/", "") for index in range(14)},
            reason=EVIL.replace("\x00", ""),
        ),
    }
    for name, plan in plans.items():
        folder = tmp_path_factory.mktemp(name)
        if name == "hostile":
            plan.texts[3] = ENDLESS
        file = folder / "page.html"
        file.write_bytes(page(random_study(folder, plan).storage, plan.study))
        pages[name] = file.as_uri()
    return pages


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("desk")) as browser:
        yield browser


@pytest.fixture(scope="module")
def telephone(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("telephone"), 380, 800) as browser:
        yield browser


def drawn(browser, name):
    """A chart, scrolled to and waited for."""
    chart = browser.find_element(By.CSS_SELECTOR, f'[data-chart="{name}"]')
    browser.execute_script("arguments[0].scrollIntoView()", chart)
    WebDriverWait(browser, 30).until(lambda _: chart.find_elements(By.CSS_SELECTOR, ".point, .bars path, .js-line"))
    return chart


def shown(browser):
    return [
        card.find_element(By.TAG_NAME, "h3").text
        for card in browser.find_elements(By.CSS_SELECTOR, ".clip")
        if card.is_displayed()
    ]


def figures(browser, field):
    cards = browser.find_elements(By.CSS_SELECTOR, ".clip:not([hidden])")
    return [float(card.get_attribute(f"data-{field}")) for card in cards]


def test_a_finished_study_has_its_answer_and_every_chart(pages, desk):
    desk.get(pages["finished"])
    assert desk.find_element(By.CSS_SELECTOR, ".big").text.startswith("0.")
    assert len(desk.find_elements(By.CSS_SELECTOR, ".commands li")) == 2
    names = [plot.get_attribute("data-chart") for plot in desk.find_elements(By.CSS_SELECTOR, ".plot")]
    # No pairs: eighteen random configurations have no five that differ in one knob alone.
    knob_charts = {"weights", "by_rate", "by_model", "every_knob"}
    assert knob_charts | {"curves", "spending", "spectrum"} <= set(names)
    for name in names:
        assert drawn(desk, name).find_elements(By.CSS_SELECTOR, "path[d]")
    assert console_messages(desk) == []


def test_a_clip_plays(pages, desk):
    desk.get(pages["finished"])
    desk.set_script_timeout(30)
    seconds = desk.execute_async_script(
        "const done = arguments[0], audio = document.querySelector('audio');"
        "audio.addEventListener('loadedmetadata', () => done(audio.duration)); audio.onerror = () => done(-1);"
        "audio.preload = 'metadata'; audio.load();"
    )
    expected = float(desk.find_element(By.CSS_SELECTOR, ".clip").get_attribute("data-seconds"))
    assert seconds == pytest.approx(expected, abs=0.2)
    width = desk.execute_async_script(
        "const done = arguments[0], image = document.querySelector('.spectrogram');"
        "image.scrollIntoView(); image.decode().then(() => done(image.naturalWidth), () => done(-1));"
    )
    assert width == 320


def test_clips_are_sorted_filtered_and_searched(pages, desk):
    desk.get(pages["finished"])
    errors = figures(desk, "errors")
    assert errors == sorted(errors, reverse=True)
    assert len(errors) == 24, "a page of clips"
    desk.find_element(By.ID, "more").click()
    assert len(figures(desk, "errors")) == 30
    Select(desk.find_element(By.ID, "sort")).select_by_value("seconds+")
    seconds = figures(desk, "seconds")
    assert seconds == sorted(seconds)
    desk.find_element(By.CSS_SELECTOR, ".ranges summary").click()
    low = desk.find_element(By.CSS_SELECTOR, '[data-field="seconds"][data-end="low"]')
    low.send_keys("0.6")
    matching = figures(desk, "seconds")
    assert matching
    assert min(matching) >= 0.6
    assert f"{len(matching)} of 30" in desk.find_element(By.ID, "count").text or len(matching) == 24
    low.clear()
    low.send_keys(Keys.BACKSPACE)
    name = shown(desk)[3]
    desk.find_element(By.ID, "find").send_keys(name)
    assert shown(desk) == [name]
    assert desk.find_element(By.ID, "count").text == "1 of 30 clips"


def test_a_keyboard_is_enough(pages, desk):
    desk.get(pages["finished"])
    body = desk.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert desk.switch_to.active_element.get_attribute("class") == "skip"
    desk.find_element(By.ID, "compare").send_keys(Keys.SPACE)
    assert any(card.is_displayed() for card in desk.find_elements(By.CSS_SELECTOR, ".untrained"))
    heads = desk.find_elements(By.CSS_SELECTOR, "#table thead button")
    heads[3].send_keys(Keys.ENTER)
    column = [row.text for row in desk.find_elements(By.CSS_SELECTOR, "#table tbody td:nth-child(4)")]
    wers = [float(text) for text in column if text != "\u2013"]
    assert wers == sorted(wers)
    heads[3].send_keys(Keys.ENTER)
    assert desk.find_elements(By.CSS_SELECTOR, '#table th[aria-sort="descending"]')


def test_edits_are_told_without_colour_and_to_screen_readers(pages, desk):
    desk.get(pages["finished"])
    text = desk.execute_script("return document.querySelector('#clips').textContent")
    for label in ("recognized as", "deleted:", "inserted:"):
        assert label in text
    signs = {sign.get_attribute("textContent") for sign in desk.find_elements(By.CSS_SELECTOR, "#clips .sign, .arrow")}
    assert signs == {"\u2192", "\u2212", "+"}


@pytest.mark.parametrize("name", ["finished", "running", "hostile"])
def test_a_telephone_scrolls_nothing_sideways(pages, telephone, name):
    telephone.get(pages[name])
    assert telephone.execute_script("return document.scrollingElement.scrollWidth") <= 380
    for plot in telephone.find_elements(By.CSS_SELECTOR, ".plot"):
        drawn(telephone, plot.get_attribute("data-chart"))
    assert telephone.execute_script("return document.scrollingElement.scrollWidth") <= 380
    assert console_messages(telephone) == []


def test_the_dark_is_dark_and_charts_follow(pages, desk):
    def colours():
        drawn(desk, "curves")
        return desk.execute_script(
            "return [getComputedStyle(document.body).backgroundColor,"
            "document.querySelector('[data-chart=curves] .main-svg').style.background]"
        )

    desk.get(pages["finished"])
    light = colours()
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    desk.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        paper = "document.querySelector('[data-chart=curves] .main-svg').style.background"
        WebDriverWait(desk, 10).until(lambda _: all(a != b for a, b in zip(colours(), light, strict=True)))
        desk.execute_script("window.dispatchEvent(new Event('beforeprint'))")
        assert desk.execute_script(f"return {paper}") == light[1], "paper is white"
        desk.execute_script("window.dispatchEvent(new Event('afterprint'))")
        assert desk.execute_script(f"return {paper}") != light[1]
        assert console_messages(desk) == []
    finally:
        desk.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_running_study_says_so(pages, desk):
    desk.get(pages["running"])
    assert "Not finished: " in desk.find_element(By.CSS_SELECTOR, ".lead").text
    assert "tmsearch status made" in desk.find_element(By.CSS_SELECTOR, ".commands").text
    assert "too few to tell" in desk.find_element(By.ID, "mattered").text
    drawn(desk, "curves")
    assert console_messages(desk) == []


def test_hostile_text_is_text(pages, desk):
    desk.get(pages["hostile"])
    for plot in desk.find_elements(By.CSS_SELECTOR, ".plot"):
        drawn(desk, plot.get_attribute("data-chart"))
    assert desk.execute_script("return window.ran") is None
    assert not desk.find_elements(By.CSS_SELECTOR, "main img:not(.spectrogram), main script, main a:not([href^='#'])")
    head = desk.find_element(By.TAG_NAME, "h1").text
    assert "</script><script>" in head
    assert "\\u202e" in head
    assert "\u202e" not in desk.page_source
    text = desk.execute_script("return document.querySelector('main').textContent")
    for part in ("onerror='window.ran = 1'", "{{7*7}}", "\U0001f469\u200d\U0001f680", "\\x1b[31m", "y" * 5000):
        assert part in text
    # Nothing that an escape had missed could run: the policy lets no program run but the page's own.
    desk.execute_script(
        "const div = document.createElement('div'); div.innerHTML = '<img src=x onerror=\"window.ran = 2\">';"
        "document.body.append(div); const script = document.createElement('script');"
        "script.textContent = 'window.ran = 3'; document.body.append(script);"
    )
    assert desk.execute_script("return window.ran") is None
    assert any("Content Security Policy" in line for line in console_messages(desk))
