"""Progress: plain lines off a terminal, silence for short stages, an honest rate after a resume."""

import io

import pytest

from bench.progress import Progress, clock


@pytest.fixture
def time_machine(monkeypatch):
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    fake = Clock()
    monkeypatch.setattr("bench.progress.time.monotonic", fake)
    return fake


def test_a_short_stage_shows_nothing(time_machine):
    stream = io.StringIO()
    with Progress(stream).stage("extract", 10, "images") as stage:
        time_machine.now += 1.9
        stage.advance(10)
    assert stream.getvalue() == ""


def test_a_long_stage_prints_plain_lines_with_rate_and_time_left(time_machine):
    stream = io.StringIO()
    with Progress(stream).stage("extract", 1000, "images") as stage:
        time_machine.now += 20
        stage.advance(400)
        time_machine.now += 1
        stage.advance(1)
        time_machine.now += 29
        stage.advance(599)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "extract  400/1,000 images  20/s  0:30 left"
    assert lines[1].startswith("extract  1,000/1,000 images  20/s")
    assert lines[-1] == "extract  1,000/1,000 images  20/s  in 0:50"
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_resumed_work_does_not_enter_the_rate(time_machine):
    stream = io.StringIO()
    with Progress(stream).stage("extract", 1000, "images") as stage:
        stage.skip(900)
        time_machine.now += 10
        stage.advance(50)
    assert "950/1,000 images  5/s  0:10 left" in stream.getvalue()


def test_quiet_shows_warnings_only(time_machine):
    stream = io.StringIO()
    progress = Progress(stream, quiet=True)
    with progress.stage("extract", 10) as stage:
        time_machine.now += 60
        stage.advance(5)
    progress.say("information")
    progress.warn("3 images are corrupt")
    assert stream.getvalue() == "warning: 3 images are corrupt\n"


def test_a_terminal_gets_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = Progress(stream)
    with progress.stage("extract", 10, "images") as stage:
        stage.done = 5
        progress.show(stage)
    assert "extract" in stream.getvalue()
    assert "5/10 images" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3725, "1:02:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text
