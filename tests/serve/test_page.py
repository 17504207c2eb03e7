"""The page in a real Chromium: type, choose, press, hear; samples, candidates, cloning, errors, keyboard, a phone."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from served import served

from llasa.serve.app import Settings, read_page
from llasa.tts import Llasa

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium: apt-get install chromium chromium-driver"
)
SCREENSHOTS = os.environ.get("LLASA_SCREENSHOTS")  # a folder to keep pictures of the page in
SAID = "The words that are spoken in the recording."


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    folder = tmp_path_factory.mktemp("browser")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,1300",
        f"--user-data-dir={folder}", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        "--disable-extensions", "--no-first-run",
    ):  # fmt: skip
        options.add_argument(argument)
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield made
    made.quit()


class Page:
    """The page, as somebody sees and uses it."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser = browser
        browser.get(address)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, self.find("#error").text
            time.sleep(0.05)
        return found

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def type(self, text: str) -> None:
        self.find("#text").clear()
        self.find("#text").send_keys(text)

    def heard(self) -> float:
        """Seconds that the audio element has played."""
        return float(self.run("return document.getElementById('player').currentTime"))

    def spoken(self) -> int:
        """Samples that have come."""
        return int(self.run("return sound.count"))

    def picture(self, name: str) -> None:
        if SCREENSHOTS:
            self.browser.save_screenshot(str(Path(SCREENSHOTS) / f"{name}.png"))


@pytest.fixture
def page(browser: webdriver.Chrome, address: str) -> Page:
    made = Page(browser, address)
    made.until(lambda: made.all(".voice"))
    return made


def test_type_choose_press_and_hear(page: Page) -> None:
    assert len(page.all(".voice")) == 7
    assert page.find("[name=voice]:checked").get_attribute("value") == "alma"
    page.type("Hello there. The page is speaking, and it goes on for a little while.")
    page.find("[name=voice][value=bruno]").click()
    before = page.heard()
    page.find("#speak").click()
    page.until(lambda: page.heard() > before + 0.1)  # while it is still being made, or soon after
    page.until(lambda: page.find("#download").is_displayed())
    page.until(lambda: page.run("return sound.position") > 0.5)
    page.picture("wide-speaking")
    assert page.spoken() > 2 * 16000
    assert "first sound after" in page.find("#facts").text
    assert page.run("return wav(sound.samples.subarray(0, sound.count)).size") == 44 + 2 * page.spoken()
    assert str(page.find("#download").get_attribute("href")).startswith("blob:")
    page.run("sound.play(0)")  # on a slow machine it may have ended
    page.find("#play").click()
    at = page.run("return sound.position")
    assert page.find("#play").get_attribute("aria-label") == "Play"
    page.find("#wave").send_keys(Keys.ARROW_RIGHT)
    page.until(lambda: page.run("return sound.position") > at)


def test_the_word_that_is_said_lights_up(page: Page) -> None:
    page.type("The lamp cost $5, and it was worth it.")
    page.find("#speak").click()
    page.until(lambda: page.find("#said").is_displayed())
    assert page.find("#said").text == "The lamp cost $5, and it was worth it."
    word = page.all("#said span")[3]
    word.click()  # which says it again
    page.until(lambda: page.all("#said .now"))
    page.run("sound.pause(); draw()")
    page.run(f"sound.from = {word.get_property('start')} + 0.05; draw()")
    assert [one.text for one in page.all("#said .now")] == ["$5,"]
    page.picture("word")


def test_words_that_cannot_be_read_are_told(page: Page) -> None:
    assert not page.find("#note").is_displayed()
    page.run("document.getElementById('text').value = 'Hello to all of you, \u4f60\u597d.'")
    page.find("#speak").click()
    page.until(lambda: "of \u4f60\u597d" in page.find("#note").text)
    page.type("Hello to all of you.")
    page.find("#speak").click()
    page.until(lambda: not page.find("#note").is_displayed() and page.find("#download").is_displayed())


def test_a_sample_of_a_voice(page: Page) -> None:
    page.find("[aria-label='Hear clara']").click()
    page.until(lambda: page.spoken() > 8000)
    assert page.find("[name=voice]:checked").get_attribute("value") == "clara"


def test_candidates_stand_side_by_side(page: Page) -> None:
    page.type("She sells sea shells.")
    page.find("#best option[value='4']").click()
    page.find("#text").send_keys(Keys.CONTROL, Keys.ENTER)
    page.until(lambda: page.find("#searching").is_displayed())
    page.until(lambda: page.find("#results").is_displayed(), 120)
    assert not page.find("#searching").is_displayed()
    assert len(page.all(".candidate")) == 4
    assert len(page.all(".candidate.chosen")) == 1
    assert 0 < float(page.find(".candidate.chosen .score span:last-child").text) <= 1
    page.picture("wide-candidates")
    before = page.heard()
    page.all(".candidate button")[2].click()
    page.until(lambda: page.heard() > before + 0.1)
    assert page.find("#facts").text.startswith("candidate")


def test_a_voice_is_cloned_and_removed(page: Page, tiny: Llasa, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    soundfile.write(path, tiny.say(SAID, voice="bruno", seed=1).samples, 16000)
    page.find("#cloning summary").click()
    page.find("#file").send_keys(str(path))
    page.find("#name").send_keys("somebody")
    page.find("#words").send_keys(SAID)
    page.find("#consent").click()
    page.find("#save").click()
    page.until(lambda: "It says" in page.find("#saving").text)
    page.picture("wide-cloned")
    assert page.find("[name=voice]:checked").get_attribute("value") == "somebody"
    page.find("[aria-label='Remove somebody']").click()
    page.until(lambda: not page.all("[name=voice][value=somebody]"))


def test_a_recording_without_speech_is_refused(page: Page) -> None:
    page.find("#cloning summary").click()
    page.find("#record").click()  # of Chromium's own microphone, which beeps
    page.until(lambda: "Stop" in page.find("#record").text)
    time.sleep(1.5)
    page.find("#record").click()
    page.until(lambda: page.find("#preview").is_displayed())
    page.find("#name").send_keys("beep")
    page.find("#consent").click()
    page.find("#save").click()
    page.until(lambda: page.find("#error").is_displayed())
    assert page.find("#error").text.strip("✕ \n")
    assert not page.all("[name=voice][value=beep]")


def test_an_error_is_shown(page: Page) -> None:
    page.type("...")
    page.find("#speak").click()
    page.until(lambda: page.find("#error").is_displayed())
    assert "the text has no words" in page.find("#error").text
    page.find("#error button").click()
    assert not page.find("#error").is_displayed()


def test_stop_stops(page: Page) -> None:
    page.type("One two three four five six seven eight nine ten. " * 10)
    page.find("#speak").click()
    page.until(lambda: page.spoken() > 3200)
    page.find("body").send_keys(Keys.ESCAPE)
    page.until(lambda: not page.find("#stop").is_displayed())
    count = page.spoken()
    time.sleep(0.5)
    assert page.spoken() == count


def test_a_phone(page: Page) -> None:
    page.browser.set_window_size(500, 1000)  # Chromium's least width
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 375, "height": 812, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        page.picture("narrow")
        assert page.run("return document.documentElement.scrollWidth") <= 375
        page.type("Hello from a phone.")
        page.find("#speak").click()
        page.until(lambda: page.find("#download").is_displayed())
        page.picture("narrow-spoken")
        assert page.run("return document.documentElement.scrollWidth") <= 375
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.browser.set_window_size(1100, 1300)


def test_a_server_with_a_key_asks_for_it(browser: webdriver.Chrome, small: Llasa, home: Path) -> None:
    with served(small, Settings(key="open sesame")) as address:
        page = Page(browser, address)
        page.until(lambda: page.find("#lock").is_displayed())
        page.find("#key").send_keys("open sesame", Keys.ENTER)
        page.until(lambda: "lm" in page.find("#model").text or not page.find("#lock").is_displayed())
        page.until(lambda: not page.find("#error").is_displayed())


def test_nothing_comes_from_elsewhere(browser: webdriver.Chrome, address: str) -> None:
    browser.get_log("browser")
    page = Page(browser, address)
    page.until(lambda: page.all(".voice"))
    html = read_page()
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in html
    assert "STYLE\n" not in html
    assert "SCRIPT\n" not in html
    loaded = page.run("return performance.getEntriesByType('resource').map(entry => new URL(entry.name).pathname)")
    assert set(loaded) <= {"/v1/models", "/v1/audio/voices"}
    assert not [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"]
