"""The engines of detection: which one a protocol asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from suites.detection.detectron_package import quietly

if TYPE_CHECKING:
    from bench.suite import Task
    from suites.detection.training import Job


def job_of(task: Task, classes: int, masks: bool) -> Job:
    """The engine that the protocol asks for."""
    if task.settings["engine"] == "detectron2":
        with quietly():
            from suites.detection.detectron import DetectronJob

        return DetectronJob(task, classes, masks)
    from suites.detection.training import Job

    return Job(task, classes, masks)
