import json
import os

import pytest

from tasks.contracts.config import MonitorConfig
from tasks.contracts.errors import DataError
from tasks.monitoring.requests import read_recent_requests
from tasks.monitoring.watermark import judged_until, mark_judged, watermark_path


def append(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"text_input": text, "time": moment}) + "\n" for text, moment in lines)


def unjudged(config, home):
    source = read_recent_requests(config, home).source
    return read_recent_requests(config, home, judged_until(source, "assistant", home))


def test_requests_that_were_judged_in_a_drift_are_not_judged_again_and_later_ones_are(home):
    config, log = MonitorConfig(), home.request_log("assistant")
    append(log, ("old", "2026-03-01T12:00:00.123+00:00"), ("last judged", "2026-03-01T12:00:00.124+00:00"))
    mark_judged(unjudged(config, home), "assistant", home)
    assert unjudged(config, home).requests == ()
    append(log, ("new", "2026-03-01T12:00:00.125+00:00"))
    assert [request.text for request in unjudged(config, home).requests] == ["new"]


def test_without_a_mark_everything_in_the_window_is_judged(home):
    append(home.request_log("assistant"), ("first", "1970-01-01T00:00:00+00:00"))
    assert len(unjudged(MonitorConfig(), home).requests) == 1


def test_each_source_has_a_mark_of_its_own(tmp_path, home):
    log_config, file = MonitorConfig(), tmp_path / "asked.jsonl"
    file_config = MonitorConfig(requests_path=str(file))
    append(home.request_log("assistant"), ("logged", "2026-03-01T12:00:00+00:00"))
    append(file, ("named", "2026-02-01T12:00:00+00:00"))
    mark_judged(unjudged(log_config, home), "assistant", home)
    assert len(unjudged(file_config, home).requests) == 1
    mark_judged(unjudged(file_config, home), "assistant", home)
    assert unjudged(log_config, home).requests == unjudged(file_config, home).requests == ()


def test_a_file_without_times_is_judged_again_only_when_it_changed(tmp_path, home):
    file = tmp_path / "asked.jsonl"
    config = MonitorConfig(requests_path=str(file))
    append(file, ("asked", None))
    mark_judged(unjudged(config, home), "assistant", home)
    assert unjudged(config, home).requests == ()
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime + 1))
    assert len(unjudged(config, home).requests) == 1


def test_the_mark_is_written_whole_and_leaves_nothing_beside_it(home):
    append(home.request_log("assistant"), ("asked", "2026-03-01T12:00:00+00:00"))
    mark_judged(unjudged(MonitorConfig(), home), "assistant", home)
    path = watermark_path("assistant", home)
    assert [entry.name for entry in path.parent.iterdir()] == ["assistant.json"]
    source = str(home.request_log("assistant"))
    assert json.loads(path.read_text(encoding="utf-8")) == {"judged_until_seconds": {source: 1772366400.0}}


@pytest.mark.parametrize("content", ["", "[]", '{"judged_until_seconds": {"log": "yesterday"}}', "{}"])
def test_a_damaged_mark_is_an_error_that_says_what_to_do(home, content):
    path = watermark_path("assistant", home)
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"assistant\.json .*delete it to judge the logged requests again"):
        judged_until(home.request_log("assistant"), "assistant", home)
