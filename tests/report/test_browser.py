"""The page in a real browser: charts are drawn, tokens are coloured, filters filter, and nothing complains."""

import json
import re
import shutil

import pytest
import torch

from tests.report.conftest import metrics, synthetic
from whet.report.run import write
from whet.runs.store import Store

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1400,900",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="chromium and chromedriver are not on PATH: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def look(browser, path, width=1400, dark=False):
    """Open a page at a width, in light or dark, and wait until its charts are drawn."""
    scheme = "dark" if dark else "light"
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    drawn(browser, scheme)


def drawn(browser, scheme):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 180).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.drawn") == scheme
    )


def ask(browser, script, *given):
    return browser.execute_script(f"return {script}", *given)


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def shown(browser, selector):
    return [element for element in find(browser, selector) if element.is_displayed()]


def colours(browser):
    """The background of each token of the response that is open."""
    return ask(browser, "[...document.querySelectorAll('#tokens span')].map(x => getComputedStyle(x).backgroundColor)")


def press(browser, selector):
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def choose(browser, selector, value):
    browser.execute_script(
        "const box = document.querySelector(arguments[0]); box.value = arguments[1];"
        "box.dispatchEvent(new Event('change')); box.dispatchEvent(new Event('input'))", selector, value,
    )  # fmt: skip


def complaints(browser):
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def page(run):
    return write(run)


@pytest.fixture
def opened(browser, page):
    """The page of the run, wide and light, as it is when it has just been opened; loading it anew takes seconds."""
    if browser.execute_script("return [location.href, window.untouched]") == [page.as_uri(), True]:
        for box in ("#by-split", "#by-step", "#by-level", "#search"):
            choose(browser, box, "")
        for button in ("#by-verdict button", f"#list [data-row='{ask(browser, 'window.first')}']"):
            press(browser, button)
        press(browser, "#quantities [data-key=advantage]")
    else:
        look(browser, page)
        browser.execute_script(
            "window.untouched = true; window.first = document.querySelector('#list [aria-current=true]').dataset.row"
        )
    return browser


# --- the page as a whole -------------------------------------------------------------------------------------


def test_the_browser_complains_about_nothing_and_asks_the_network_for_nothing(browser, page):
    look(browser, page)
    press(browser, "details summary")
    assert complaints(browser) == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}


def test_every_chart_is_drawn(opened):
    opened.execute_script("document.querySelector('details').open = true")
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(opened, 90).until(lambda b: not find(b, "[data-chart]:not([data-drawn])"))
    marks = ask(
        opened,
        "[...document.querySelectorAll('[data-chart]')].map("
        "x => [x.dataset.chart, x.querySelectorAll('.mark-line path, .mark-area path, .mark-rect path, "
        ".mark-symbol path').length, x.querySelector('svg')?.clientWidth ?? 0])",
    )
    assert len(marks) >= 18
    assert all(count > 0 and width > 150 for _, count, width in marks), marks


@pytest.mark.parametrize(("width", "dark"), [(1400, True), (700, False), (380, True)])
def test_nothing_sticks_out_of_the_page(browser, page, width, dark):
    look(browser, page, width, dark)
    assert ask(browser, "document.documentElement.scrollWidth") <= width
    assert complaints(browser) == []


def test_dark_is_dark_and_the_charts_follow(browser, page):
    look(browser, page)
    stroke = "document.querySelector('[data-chart=metric-reward] .mark-line path').getAttribute('stroke')"
    light = ask(browser, stroke), ask(browser, "getComputedStyle(document.body).backgroundColor")
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    drawn(browser, "dark")
    dark = ask(browser, stroke), ask(browser, "getComputedStyle(document.body).backgroundColor")
    assert light[0] != dark[0]
    assert light[1] == "rgb(251, 251, 250)"
    assert dark[1] == "rgb(14, 17, 22)"


def test_a_chart_tells_the_numbers_under_the_pointer(opened):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    chart = find(opened, "[data-chart='passing-0'] .mark-symbol path")[0]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", chart)
    ActionChains(opened).move_to_element(chart).perform()
    WebDriverWait(opened, 30).until(
        lambda b: "pass@k" in ask(b, "document.querySelector('#vg-tooltip-element').innerText")
    )


# --- the browser of responses --------------------------------------------------------------------------------


def test_tokens_are_coloured_by_advantage_at_first(opened):
    assert len(set(colours(opened)) - {"rgba(0, 0, 0, 0)"}) > 0
    assert ask(opened, "document.querySelector('#quantities [aria-pressed=true]').textContent") == "advantage"


def test_another_quantity_gives_other_colours(opened):
    before = colours(opened)
    legend = ask(opened, "document.getElementById('high').textContent")
    press(opened, "#quantities [data-key=sampled_entropy]")
    after = colours(opened)
    assert before != after
    assert len(set(after)) > 1
    assert ask(opened, "document.getElementById('high').textContent") != legend


def hue(colour):
    """oklab's b of a computed colour: negative for blue, positive for orange."""
    return float(re.match(r"oklab\(\S+ \S+ (\S+)", colour)[1])


@pytest.mark.parametrize(("verdict", "sign"), [("right", -1), ("wrong", 1)])
def test_what_is_better_and_made_likelier_is_blue_and_the_rest_orange(opened, verdict, sign):
    """A right answer has a positive advantage and a negative push, the derivative of the loss: both are blue."""
    press(opened, f"#by-verdict [data-key={verdict}]")
    assert hue(colours(opened)[0]) * sign > 0
    press(opened, "#quantities [data-key=push]")
    assert hue(colours(opened)[0]) * sign > 0


def test_a_token_tells_all_its_numbers(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    token = find(opened, "#tokens span")[0]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", token)
    ActionChains(opened).move_to_element(token).perform()
    said = ask(opened, "document.getElementById('tip').innerText")
    for name in ("advantage", "push", "log-ratio", "entropy", "log-prob", "weight", "probability", "position"):
        assert name in said, name


def test_tokens_that_are_not_trained_are_struck_out(opened):
    for _ in range(30):
        struck = find(opened, "#tokens .untrained")
        if struck:
            break
        opened.execute_script("document.querySelector('#list [aria-current=true]').previousElementSibling.click()")
    assert "line-through" in struck[0].value_of_css_property("text-decoration")
    assert "Struck out" in ask(opened, "document.getElementById('meaning').textContent")


def test_right_and_wrong_can_be_filtered(opened):
    every = len(find(opened, "#list [data-row]"))
    found = {}
    for verdict in ("right", "wrong"):
        press(opened, f"#by-verdict [data-key={verdict}]")
        found[verdict] = len(find(opened, "#list [data-row]"))
        marks = ask(opened, "[...document.querySelectorAll('#list .where b')].map(x => x.textContent)")
        assert set(marks) == {"✓" if verdict == "right" else "✗"}
        assert ask(opened, "document.getElementById('found').textContent") == f"{found[verdict]} of {every}"
        assert verdict in ask(opened, "document.getElementById('numbers').innerText")
    assert found["right"] + found["wrong"] == every


def test_responses_can_be_filtered_by_split_step_and_level(opened):
    choose(opened, "#by-split", "test")
    choose(opened, "#by-step", "120")
    choose(opened, "#by-level", "2")
    places = ask(opened, "[...document.querySelectorAll('#list .where')].map(x => x.innerText.replace(/\\s+/g, ' '))")
    assert places
    assert all("step 120" in place and "test" in place and "level 2" in place for place in places)


def test_an_evaluation_has_no_advantage_to_choose(opened):
    choose(opened, "#by-split", "test")
    assert ask(opened, "document.querySelector('#quantities [data-key=advantage]').disabled")
    assert ask(opened, "document.querySelector('#quantities [aria-pressed=true]').textContent") == "entropy"
    choose(opened, "#by-split", "train")
    assert ask(opened, "document.querySelector('#quantities [aria-pressed=true]').textContent") == "advantage"


def test_responses_can_be_searched(opened):
    every = len(find(opened, "#list [data-row]"))
    word = ask(opened, "document.getElementById('prompt').textContent").split()[-2]
    choose(opened, "#search", word.upper())
    assert 0 < len(find(opened, "#list [data-row]")) < every
    assert word in ask(opened, "document.getElementById('prompt').textContent")
    choose(opened, "#search", "nobody says this")
    assert find(opened, "#list [data-row]") == []
    assert "No response is like that." in ask(opened, "document.getElementById('list').textContent")


def test_arrow_keys_move_through_the_list(opened):
    choose(opened, "#by-step", "24")
    before = ask(opened, "document.querySelector('#list [aria-current=true]').dataset.row")
    find(opened, "#list")[0].send_keys("\ue013")  # arrow up
    after = ask(opened, "document.querySelector('#list [aria-current=true]').dataset.row")
    assert int(after) == int(before) - 1


def test_the_group_is_shown_and_opens_the_one_that_is_pressed(opened):
    assert len(find(opened, "#siblings .other")) == 8
    press(opened, "#siblings .other:first-of-type button:not([aria-current=true])")
    assert find(opened, "#siblings [aria-current=true]")


# --- runs with missing pieces --------------------------------------------------------------------------------


def _nothing(folder):
    return Store.create(folder, {})


def _one_step(folder):
    store = Store.create(folder, {"recipe": "grpo", "task": "digits"})
    store.log(1, metrics(0.0, torch.Generator().manual_seed(0)))
    return store


def _stopped(folder):
    return synthetic(folder, steps=5, evaluations=1, kept=0)


def _two_steps(folder):
    return synthetic(folder, steps=2, evaluations=2, kept=2)


@pytest.mark.parametrize("make", [_nothing, _one_step, _stopped, _two_steps])
def test_a_run_with_missing_pieces_has_a_page_without_complaints(browser, tmp_path, make):
    look(browser, write(make(tmp_path / "run")))
    assert complaints(browser) == []
    assert find(browser, "h1")
    assert not find(browser, ".chart-failed")
