"""Log lines, as people and machines read them."""

from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from faas import logs


def a_record(event: str = "call_ended", **fields: object) -> logging.LogRecord:
    record = logging.LogRecord("faas.test", logging.WARNING, __file__, 1, event, (), None)
    record.created = 1_700_000_000.1234
    vars(record).update(fields)
    return record


def test_a_line_is_an_event_and_its_fields() -> None:
    line = logs.LogfmtFormatter().format(a_record(app_name="demo", size_bytes=5, took_s=0.123456))
    assert line == (
        "ts=2023-11-14T22:13:20.123Z level=warning logger=faas.test event=call_ended"
        " app_name=demo size_bytes=5 took_s=0.123"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a "quote"', r'"a \"quote\""'),
        ("a=b", '"a=b"'),
        ("line\nbreak", r'"line\nbreak"'),
        ("\x1b[31mred", r'"\u001b[31mred"'),
        ("tab\t", r'"tab\t"'),
        ("grüße", "grüße"),
        (None, "None"),
        (True, "True"),
    ],
)
def test_a_value_cannot_pass_for_another_field_or_line(value: object, written: str) -> None:
    line = logs.LogfmtFormatter().format(a_record(value=value))
    assert line.endswith(f"event=call_ended value={written}")
    assert "\n" not in line


def test_json_is_one_object_a_line_whatever_the_fields() -> None:
    line = logs.JSONFormatter().format(a_record("line\nbreak", value=object, text='"', path=re))
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["event"], parsed["level"], parsed["text"]) == ("line\nbreak", "warning", '"')
    assert parsed["ts"] == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize("formatter", [logs.JSONFormatter(), logs.LogfmtFormatter()])
def test_a_trace_is_a_field_of_the_line(formatter: logging.Formatter) -> None:
    record = a_record()
    try:
        raise ZeroDivisionError("no")
    except ZeroDivisionError:
        record.exc_info = sys.exc_info()
    line = formatter.format(record)
    assert "ZeroDivisionError: no" in line
    assert "\n" not in line


def test_setup_replaces_what_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        logs.setup(level="info", style="logfmt")
        logs.setup(level="warning", style="json")
        logging.getLogger("faas.test").info("too_quiet")
        logging.getLogger("faas.test").warning("loud", extra={"size_bytes": 1})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "loud"
