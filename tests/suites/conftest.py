"""What tests of several suites are given."""

import shutil

import pytest


@pytest.fixture
def shapes(tmp_path):
    """A `segfolder:` of generated shapes whose test images are its training images."""
    from densehelp import write_segfolder

    folder = tmp_path / "shapes"
    write_segfolder(folder, (6, 1))
    for kind in ("images", "masks"):
        shutil.rmtree(folder / kind / "val")
        shutil.copytree(folder / kind / "train", folder / kind / "val")
    return folder
