"""The login as a person sees it: headless Chromium with its own authenticator, over TLS, under the policy, with JavaScript and without."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from signing_in import PASSWORD, App
from test_server import Control, listening, wait

from control.commands.init import CONSOLE_NAME

pytest.importorskip("selenium", reason="the browser's driver is not installed")
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium, or none with its driver")

AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
}


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    made = Control(tmp_path_factory.mktemp("browser") / "state")
    made.run("migrate")
    for name in ("ada", "bob"):
        made.run("operator", "add", name, "--password-stdin", stdin=PASSWORD)
    with made.service("serve"):
        wait(lambda: listening(made.port))
        yield made


class Person:
    """Somebody at a browser."""

    def __init__(self, profile: Path, control: Control, *, javascript: bool = True) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={profile}",
            f"--host-resolver-rules=MAP {CONSOLE_NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--ignore-certificate-errors",
        ):
            options.add_argument(argument)
        if not javascript:
            options.add_experimental_option("prefs", {"webkit.webprefs.javascript_enabled": False})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.base = f"https://{CONSOLE_NAME}:{control.port}"

    def find(self, selector: str) -> WebElement:
        """The element, once it is there."""
        wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, selector), 30)
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def heading(self, text: str) -> None:
        """Wait for a page of this heading, and for its script, which runs before the page counts as complete."""
        wait(lambda: self._shows(text), 30)

    def _shows(self, text: str) -> bool:
        try:
            shown = text in self.driver.find_element(By.CSS_SELECTOR, "h1").text
            return shown and self.driver.execute_script("return document.readyState") == "complete"
        except (NoSuchElementException, StaleElementReferenceException):
            return False  # between two pages

    def give_password(self, name: str) -> None:
        """Log in, up to the second factor."""
        self.driver.get(f"{self.base}/login/")
        self.find("#id_username").send_keys(name)
        self.find("#id_password").send_keys(PASSWORD)
        self.find("main button").click()

    def complaints(self) -> list[str]:
        """What the browser says against the pages."""
        entries: list[dict[str, Any]] = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if "favicon" not in entry["message"]]


def person(tmp_path: Path, control: Control, **how: bool) -> Iterator[Person]:
    made = Person(tmp_path / "profile", control, **how)
    try:
        yield made
    finally:
        made.driver.quit()


@pytest.fixture
def somebody(tmp_path: Path, control: Control) -> Iterator[Person]:
    yield from person(tmp_path, control)


@pytest.fixture
def without_javascript(tmp_path: Path, control: Control) -> Iterator[Person]:
    yield from person(tmp_path, control, javascript=False)


def test_a_passkey_from_the_first_login_to_the_next_and_to_what_is_dangerous(somebody: Person) -> None:
    driver = somebody.driver
    driver.execute_cdp_cmd("WebAuthn.enable", {})
    driver.execute_cdp_cmd("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    somebody.give_password("ada")
    somebody.heading("Set up a second factor")
    somebody.find("form[data-passkey=create] button").click()
    somebody.heading("Recovery codes")
    assert len(driver.find_elements(By.CSS_SELECTOR, ".codes code")) == 10

    driver.get(f"{somebody.base}/account/")
    somebody.heading("Your account: ada")
    assert "Chrome on Linux (this session)" in driver.page_source
    somebody.find('form[action="/logout/"] button').click()
    somebody.heading("Log in")
    driver.get(f"{somebody.base}/account/")
    somebody.heading("Log in")

    somebody.give_password("ada")
    somebody.heading("Second factor")
    somebody.find("form[data-passkey=get] button").click()
    somebody.heading("Overview")
    driver.get(f"{somebody.base}/account/step-up/?next=/account/recovery-codes/")
    somebody.heading("Confirm that it is you")
    somebody.find("form[data-passkey=get] button").click()
    somebody.heading("New recovery codes")
    assert somebody.complaints() == []


def test_who_refuses_the_passkey_is_told(somebody: Person) -> None:
    driver = somebody.driver
    driver.execute_cdp_cmd("WebAuthn.enable", {})
    driver.execute_cdp_cmd(
        "WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR | {"isUserVerified": False}}
    )
    somebody.give_password("bob")
    somebody.heading("Set up a second factor")
    told = somebody.find("[data-passkey-failed]")
    assert not told.is_displayed()
    somebody.find("form[data-passkey=create] button").click()
    wait(told.is_displayed)


def test_an_app_needs_no_javascript(without_javascript: Person) -> None:
    driver = without_javascript.driver
    without_javascript.give_password("bob")
    without_javascript.heading("Set up a second factor")
    assert without_javascript.find(".qr svg").size["width"] > 100
    secret = without_javascript.find(".secret").text.replace(" ", "")
    app = App(base64.b32decode(secret))
    without_javascript.find("#code").send_keys(app.code())
    driver.find_element(By.CSS_SELECTOR, "#new-app ~ ol button").click()
    without_javascript.heading("Recovery codes")
    driver.get(f"{without_javascript.base}/account/")
    without_javascript.find('form[action="/logout/"] button').click()
    without_javascript.give_password("bob")
    without_javascript.heading("Second factor")
    without_javascript.find("#code").send_keys(app.code(1))
    without_javascript.find("#with-app ~ form button").click()
    without_javascript.heading("Overview")
