"""The page of the service in a browser, over studies that are made up."""

import dataclasses
import re

import pytest
from axe_core_python.selenium import Axe
from helpers.made_up_service import BEGUN, MadeUpService, make_rows, make_study, served
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from tuner.service.access import Access, TokenFile, new_token
from tuner.service.datasets import Dataset
from tuner.service.routes import page
from tuner.service.settings import Settings

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=\"document.title='broken'\">'&amp;"
DATA = "a" * 64
PHONE = (390, 844)
YAML = f"""\
name: sales
data:
  path: dataset:{DATA}
  target: sold
  time: month
task: {{kind: forecast, window: 12, horizon: 1}}
budget:
  trials: 10
  epochs: 5
"""
RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
VIEWS = {
    "studies": "",
    "running": "?study=air_passengers-woa-0",
    "done": "?study=etth1-tpe-0",
    "failed": "?study=sunspots-pso-0",
    "external": "?study=external",
    "hostile": "?study=HOSTILE",
    "new": "?new=1",
    "proposed": f"?new=1&dataset={DATA}",
    "missing": "?study=nothing",
}


def made_up():
    service = MadeUpService()
    ended = {"ended": BEGUN.format(50)}
    service.add(make_study("etth1-tpe-0", state="done", trials=30, **ended), make_rows(30, 2))
    error = "data.path: sunspots.csv has no column 'year'; write data.time: month"
    service.add(make_study("sunspots-pso-0", state="failed", error=error, **ended))
    rows = make_rows(9, 3, params=(HOSTILE, "long_name_" * 8))
    rows[0] |= {"status": "failed", "value": None, "reason": HOSTILE * 4}
    service.add(make_study(HOSTILE, experiment=HOSTILE, metric=HOSTILE, state="cancelled"), rows)
    service.add(make_study("external", kind="external", trials=None), make_rows(7))
    service.add(make_study(), make_rows(40))
    service.add(make_study("dates-cmaes-1", state="queued", position=1, priority=5))
    columns = [{"name": n, "kind": "numbers"} for n in ("month", "sold", HOSTILE)]
    facts = {"name": "sales.csv", "rows": 144, "columns": columns, "uploaded": BEGUN.format(0)}
    service.data[DATA] = Dataset.model_validate({"id": DATA, "bytes": 9, **facts})
    service.proposal = {"yaml": YAML, "notes": [f"target: {HOSTILE}"]}
    return service


def view(name):
    from urllib.parse import quote

    return VIEWS[name].replace("HOSTILE", quote(HOSTILE, safe=""))


@pytest.fixture(scope="module", autouse=True)
def mlflow():
    """A server of MLflow that has every study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "find_study_link", lambda *_: "http://127.0.0.1:1/#/a?b='<img>")
        yield


@pytest.fixture(scope="module")
def open_service(tmp_path_factory):
    with served(made_up(), Access(), Settings(root=tmp_path_factory.mktemp("open"))) as found:
        yield found


@pytest.fixture
def fresh(tmp_path):
    """A service that a test may change."""
    with served(made_up(), Access(), Settings(root=tmp_path)) as found:
        yield found


@pytest.fixture
def browser(the_browser):
    """A browser on a large screen in a bright room; the test ends with its console empty."""
    look(the_browser)
    the_browser.driver.get_log("browser")
    yield the_browser
    look(the_browser)
    the_browser.driver.get("about:blank")


def look(browser, width=1280, height=900, scheme="light"):
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def complaints(browser):
    """Return what the browser complains of: errors of scripts, breaches of the policy."""
    return [entry["message"] for entry in browser.driver.get_log("browser")]


def open_view(browser, found, query):
    browser.open(f"{found.url}/{query}")
    browser.find("#view, #access")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_view_breaks_no_rule_of_accessibility(browser, open_service, name, size, scheme):
    look(browser, *size, scheme=scheme)
    open_view(browser, open_service, view(name))
    if name == "proposed":
        browser.see("No error")
    found = Axe().run(browser.driver, options={"runOnly": RULES})["violations"]
    assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_quiet_and_runs_no_name(browser, open_service, name):
    open_view(browser, open_service, view(name))
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.driver.title != "broken"
    ignored = "404" if name == "missing" else "MLflow"
    assert [line for line in complaints(browser) if ignored not in line] == []


def test_a_hostile_name_is_read_as_it_was_written(browser, open_service):
    open_view(browser, open_service, "")
    browser.press("a", HOSTILE)
    assert browser.find("h1").text == HOSTILE
    assert browser.driver.title == f"{HOSTILE} · tuner"
    assert HOSTILE in browser.find("table.trials thead").text
    open_view(browser, open_service, view("proposed"))
    options = Select(browser.find("#target")).options
    assert HOSTILE in [option.text for option in options]


def test_a_hostile_message_is_text(browser, fresh):
    fresh.events.refusal = HOSTILE
    open_view(browser, fresh, view("running"))
    browser.press("button", "Cancel")
    browser.wait(lambda: browser.find("#message").text == HOSTILE)
    assert browser.run("return document.querySelectorAll('img').length") == 0


def test_a_view_follows_events_and_keeps_what_a_person_does(browser, fresh):
    open_view(browser, fresh, view("running") + "&order=number")
    browser.wait(lambda: fresh.events.open == 1)
    browser.run("document.querySelector('#status').value = 'pruned'; scrollTo(0, 300)")
    browser.run("document.querySelector('#status').focus()")
    browser.run("window.kept = document.querySelector('table.trials tbody tr')")
    fresh.service.add(make_study(), make_rows(44))
    fresh.events.send()
    browser.see("44 of 60", "1–44 of 44")
    assert browser.run("return document.activeElement.id") == "status"
    assert browser.run("return document.querySelector('#status').value") == "pruned"
    assert browser.run("return document.querySelector('table.trials tbody tr') === window.kept")
    assert browser.run("return scrollY") == 300
    fresh.service.add(make_study(state="done"), make_rows(60))
    fresh.events.send("ended")
    browser.see("60 of 60", "Model (tar)")
    browser.wait(lambda: "done, 60 of 60" in browser.run("return live.textContent"))
    browser.wait(lambda: fresh.events.open == 0)
    assert complaints(browser) == []


def test_a_stream_that_breaks_is_opened_again(browser, fresh):
    open_view(browser, fresh, view("running"))
    browser.wait(lambda: fresh.events.open == 1)
    fresh.events.send("finished")
    fresh.events.cut()
    browser.wait(lambda: fresh.events.open == 0)
    browser.wait(lambda: fresh.events.open == 1)
    assert fresh.events.resumed_from == "1"


def test_the_list_follows_its_studies(browser, fresh):
    open_view(browser, fresh, "")
    fresh.service.add(make_study("later", state="running"), make_rows(3))
    browser.see("later")


def tab(browser, times=1):
    ActionChains(browser.driver).send_keys(Keys.TAB * times).perform()
    return browser.driver.switch_to.active_element


def tab_to(browser, wanted, most=80):
    for _ in range(most):
        element = tab(browser)
        if wanted(element):
            style = browser.driver.execute_script(
                "const s = getComputedStyle(arguments[0]); return s.outlineStyle + s.outlineWidth",
                element,
            )
            assert style == "solid2px", style
            return element
    raise AssertionError("not reached by tab")


def test_the_keyboard_alone_reaches_everything(browser, open_service):
    open_view(browser, open_service, "")
    assert tab(browser).text == "Skip to the content"
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait(lambda: browser.run("return document.activeElement.id") == "main")
    tab_to(browser, lambda e: e.text == "etth1-tpe-0").send_keys(Keys.ENTER)
    browser.see("Best configuration")
    for name in ("Extend", "Report", "Model (tar)", "MLflow"):
        tab_to(browser, lambda e, name=name: e.text == name)
    region = tab_to(browser, lambda e: e.get_attribute("role") == "region")
    assert region.get_attribute("aria-labelledby") == "trials-title"
    tab_to(browser, lambda e: e.text == "Trial").send_keys(Keys.ENTER)
    browser.wait(lambda: "order=" in browser.driver.current_url)
    assert browser.find("th[aria-sort='descending']").text.startswith("Trial")


def test_errors_are_marked_in_their_lines(browser, open_service):
    open_view(browser, open_service, view("proposed"))
    browser.see("No error")
    yaml = browser.find("#yaml")
    wrong = YAML.replace("trials: 10", "trials: ten").replace("horizon: 1", "horizon: -1")
    yaml.send_keys(Keys.CONTROL, "a")
    yaml.send_keys(wrong.replace("\n", Keys.ENTER))
    browser.see("2 errors", "task.horizon", "budget.trials")
    assert yaml.get_attribute("aria-invalid") == "true"
    marked = [e.text for e in browser.driver.find_elements("css selector", ".lines .bad")]
    assert marked == ["✕ 6", "✕ 8"]
    browser.press("button", "line 8")
    chosen = "return yaml.value.slice(yaml.selectionStart, yaml.selectionEnd)"
    assert browser.run(chosen) == "  trials: ten"
    browser.driver.switch_to.active_element.send_keys("  trials: 12")
    browser.see("1 error")
    assert complaints(browser) == []


def is_open(browser):
    return browser.run("return document.querySelector('dialog').open")


def test_a_study_is_deleted_after_a_second_look(browser, fresh):
    open_view(browser, fresh, view("done"))
    button = tab_to(browser, lambda e: e.text == "Delete")
    button.send_keys(Keys.ENTER)
    browser.see("Delete etth1-tpe-0?", "gone for good")
    assert browser.driver.switch_to.active_element.text == "Keep"
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    browser.wait(lambda: not is_open(browser))
    assert browser.driver.switch_to.active_element == button
    button.send_keys(Keys.ENTER)
    browser.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    browser.wait(lambda: not is_open(browser))
    assert "etth1-tpe-0" in fresh.service.known
    button.send_keys(Keys.ENTER)
    browser.press("dialog .danger", "Delete")
    browser.wait(lambda: browser.driver.title == "Studies · tuner")
    assert "etth1-tpe-0" not in browser.see("sunspots-pso-0")
    assert "etth1-tpe-0" not in fresh.service.known
    assert complaints(browser) == []


def test_a_study_that_is_not_deleted_says_why(browser, fresh):
    open_view(browser, fresh, view("failed"))
    browser.press("button", "Delete")
    browser.press("dialog .danger", "Delete")
    browser.wait(lambda: browser.find("#message").text == "it is refused")
    assert browser.find("h1").text == "sunspots-pso-0"


def predicted(browser):
    browser.find("#predicted")
    rows = browser.driver.find_elements("css selector", "#predicted tbody tr")
    return [[cell.text for cell in row.find_elements("css selector", "td")] for row in rows]


def test_a_model_predicts_after_the_data_or_from_a_file(browser, fresh, tmp_path):
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    open_view(browser, fresh, view("done"))
    browser.press("button", "Predict")
    row = ["1961-01-01", "33.3333", "–"]
    browser.wait(lambda: predicted(browser)[0] == row)
    assert len(predicted(browser)) == 2
    assert "2 rows predicted." in browser.run("return live.textContent")
    content = "month,sold\n" + "1,2\n" * 3
    (tmp_path / "rows.csv").write_text(content)
    browser.find("#rows").send_keys(str(tmp_path / "rows.csv"))
    browser.press("button", "Predict")
    browser.see("3 rows.", "the rows of the first 12 months are used")
    browser.run("refresh()")  # of the view; what was predicted stays
    browser.wait(lambda: not browser.run("return busy"))
    assert len(predicted(browser)) == 3
    browser.press("button", "Download CSV")
    saved = tmp_path / "etth1-tpe-0-predictions.csv"
    browser.wait(lambda: saved.exists() and saved.read_text())
    assert saved.read_text() == "month,sold\n1,2\n"
    as_json, as_csv = "application/json", "text/csv"
    assert fresh.events.predicted == [
        (as_json, as_json, b"{}"),
        (as_csv, as_json, content.encode()),
        (as_csv, as_csv, content.encode()),
    ]
    assert complaints(browser) == []


def test_rows_that_are_refused_say_why(browser, fresh, tmp_path):
    fresh.events.refusal = HOSTILE
    (tmp_path / "rows.csv").write_text("wrong")
    open_view(browser, fresh, view("done"))
    browser.find("#rows").send_keys(str(tmp_path / "rows.csv"))
    browser.press("button", "Predict")
    browser.wait(lambda: browser.find("#message").text == HOSTILE)
    assert not browser.run("return predicted")


def test_of_many_predictions_the_first_are_shown(browser, fresh, tmp_path):
    (tmp_path / "rows.csv").write_text("month,sold\n" + "1,2\n" * 1_500)
    open_view(browser, fresh, view("done"))
    browser.find("#rows").send_keys(str(tmp_path / "rows.csv"))
    browser.press("button", "Predict")
    browser.see("1,500 rows, of which 200 are shown.")
    assert len(browser.driver.find_elements("css selector", "#predicted tbody tr")) == 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), PHONE], ids=["desk", "phone"])
def test_predictions_and_the_dialog_are_accessible(browser, open_service, size, scheme):
    look(browser, *size, scheme=scheme)
    open_view(browser, open_service, view("done"))
    browser.press("button", "Predict")
    browser.see("2 rows.")
    for shown in ("predictions", "dialog"):
        if shown == "dialog":
            browser.press("button", "Delete")
        found = Axe().run(browser.driver, options={"runOnly": RULES})["violations"]
        assert [(v["id"], [node["html"] for node in v["nodes"]]) for v in found] == []
        assert browser.run("return document.documentElement.scrollWidth") <= size[0]


@pytest.fixture
def locked(tmp_path):
    """A service with tokens, and a token that reads and writes."""
    path = tmp_path / "tokens.yaml"
    token = new_token(path, "ana", "write")
    service = made_up()
    for study in service.known.values():
        study["owner"] = "ana"
    with served(service, Access(TokenFile(path)), Settings(root=tmp_path)) as found:
        yield dataclasses.replace(found), token


def test_a_token_is_asked_for_once_and_kept_in_the_tab(browser, locked):
    found, token = locked
    open_view(browser, found, view("running"))
    assert "air_passengers" not in browser.text
    browser.find("#token").send_keys("tuner_wrong", Keys.ENTER)
    browser.see("The token is unknown")
    browser.find("#token").send_keys(token, Keys.ENTER)
    browser.see("air_passengers-woa-0", "Best configuration")
    browser.wait(lambda: found.events.open == 1)
    browser.press("a", "Studies")
    browser.see("etth1-tpe-0")
    assert browser.driver.get_cookies() == []
    assert token not in browser.run("return Object.values(localStorage)")
    assert token not in browser.driver.page_source
    browser.press("button", "Forget token")
    browser.see("This service needs a token")
    assert browser.run("return Object.values(sessionStorage)") == []


def test_a_download_carries_the_token(browser, locked, tmp_path):
    found, token = locked
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    open_view(browser, found, view("done"))
    browser.find("#token").send_keys(token, Keys.ENTER)
    browser.press("a", "Best configuration (YAML)")
    saved = tmp_path / "etth1-tpe-0-best.yaml"
    browser.wait(lambda: saved.exists() and saved.read_text())
    assert saved.read_text() == "name: etth1-tpe-0\n"
