"""Published data sets by name, in the layout of their archive under ``$BENCH_DATA/<name>``."""

from __future__ import annotations

from collections.abc import Callable

from bench.data.opening import data_folders, not_found
from bench.dataset import Splits
from bench.errors import BenchError
from bench.registry import resolve

Reader = Callable[[str], Splits]


def _folder(name: str) -> Reader:
    """A reader of ``train/`` and ``val/`` with a folder per class."""

    def open_named(rest: str) -> Splits:
        return _open(name, rest, lambda path: f"imagefolder:{path}", "put its train/ and val/ class folders there")

    return open_named


def _torchvision(name: str, class_name: str) -> Reader:
    """A reader through torchvision's class, whose archive layout is the published one."""

    def open_named(rest: str) -> Splits:
        provide = f"unpack it there as torchvision.datasets.{class_name} lays it out (bench never downloads data)"
        return _open(name, rest, lambda path: f"torchvision:{class_name}:{path}", provide)

    return open_named


def _open(name: str, rest: str, spec: Callable[[object], str], provide: str) -> Splits:
    if rest:
        raise BenchError(f"'{name}' is looked up under $BENCH_DATA and takes no path; write {spec(rest)}")
    looked = data_folders(name)
    for folder in looked:
        if folder.is_dir():
            kind, _, place = spec(folder).partition(":")
            splits: Splits = resolve("datasets", kind)(place)
            for split in splits:
                # The folder's name may be anything behind a link; the set's name is its own.
                split.name = name
            return splits
    raise not_found(name, looked, f"set $BENCH_DATA and {provide}, or give any folder with --data {spec('PATH')}")


open_imagenet = _folder("imagenet")
open_cifar10 = _torchvision("cifar10", "CIFAR10")
open_cifar100 = _torchvision("cifar100", "CIFAR100")
open_stl10 = _torchvision("stl10", "STL10")
open_svhn = _torchvision("svhn", "SVHN")
open_mnist = _torchvision("mnist", "MNIST")
open_food101 = _torchvision("food101", "Food101")
open_flowers102 = _torchvision("flowers102", "Flowers102")
open_pets = _torchvision("pets", "OxfordIIITPet")
open_dtd = _torchvision("dtd", "DTD")
open_aircraft = _torchvision("aircraft", "FGVCAircraft")
open_cars = _torchvision("cars", "StanfordCars")
open_eurosat = _torchvision("eurosat", "EuroSAT")
open_gtsrb = _torchvision("gtsrb", "GTSRB")
