"""Small archives of the sets that list their images, in their published layouts, under a folder ($BENCH_DATA)."""

import json

from datahelp import encoded, put

from bench.data.voc07cls import CLASSES


def lines(path, rows):
    put(path, ("\n".join(rows) + "\n").encode())


def write_cub(root):
    """Eight birds of two species."""
    base = root / "cub" / "CUB_200_2011"
    names = [f"{1 + i % 2:03d}.{('Albatross', 'Auklet')[i % 2]}/Bird_{i}.jpg" for i in range(8)]
    for i, name in enumerate(names):
        put(base / "images" / name, encoded(i, "PNG"))
    lines(base / "images.txt", [f"{i + 1} {name}" for i, name in enumerate(names)])
    lines(base / "image_class_labels.txt", [f"{i + 1} {1 + i % 2}" for i in range(8)])
    lines(base / "train_test_split.txt", [f"{i + 1} {int(i < 5)}" for i in range(8)])
    lines(base / "classes.txt", ["1 001.Albatross", "2 002.Auklet"])
    return base


def write_sun397(root):
    """Two scenes, one of them in a folder of a folder."""
    base = root / "sun397" / "SUN397"
    for split, first in (("Training_01", 0), ("Testing_01", 4)):
        names = [f"{('a/abbey', 'c/church/outdoor')[i % 2]}/sun_{first + i}.jpg" for i in range(4)]
        for i, name in enumerate(names):
            put(base / name, encoded(first + i, "PNG"))
        lines(root / "sun397" / f"{split}.txt", [f"/{name}" for name in names])
    return base


def write_caltech101(root):
    base = root / "caltech101" / "101_ObjectCategories"
    for name, count in (("BACKGROUND_Google", 34), ("ant", 31)):
        for i in range(count):
            put(base / name / f"image_{i + 1:04d}.jpg", b"any")
    return base


def write_birdsnap(root):
    base = root / "birdsnap"
    names = [f"{('Gull', 'Wren')[i % 2]}/{i}.jpg" for i in range(8)]
    for i, name in enumerate(names):
        if i not in (1, 7):  # Links that are dead.
            put(base / "download" / "images" / name, encoded(i, "PNG"))
    lines(base / "images.txt", ["url\tmd5\tpath\tx1", *(f"http://x\t0\t{name}\t3" for name in names)])
    lines(base / "test_images.txt", ["path", *names[5:]])
    return base


def write_tinyimagenet(root):
    base = root / "tinyimagenet" / "tiny-imagenet-200"
    lines(base / "wnids.txt", ["n02", "n01"])
    for number, name in enumerate(("n02", "n01")):
        for i in range(3):
            put(base / "train" / name / "images" / f"{name}_{i}.JPEG", encoded(10 * number + i, "PNG"))
        put(base / "val" / "images" / f"val_{number}.JPEG", encoded(50 + number, "PNG"))
    lines(base / "val" / "val_annotations.txt", ["val_0.JPEG\tn01\t0\t0\t62\t57", "val_1.JPEG\tn02\t0\t0\t62\t57"])
    return base


def write_inat18(root):
    base = root / "inat18"
    for split, count in (("train", 4), ("val", 2)):
        files = [f"train_val2018/Aves/{(17, 4030)[i % 2]}/{split}{i}.jpg" for i in range(count)]
        for i, name in enumerate(files):
            put(base / name, encoded(i, "PNG"))
        document = {
            "images": [{"id": 900 - i, "file_name": name} for i, name in enumerate(files)],
            "annotations": [
                {"id": i, "image_id": 900 - i, "category_id": (17, 4030)[i % 2]} for i in range(count)
            ],
            "categories": [{"id": 4030, "name": "Turdus merula"}, {"id": 17, "name": "Anas acuta"}],
        }  # fmt: skip
        put(base / f"{split}2018.json", json.dumps(document).encode())
    return base


def write_voc07cls(root, folder="voc07cls"):
    """Six + three photos of cats and dogs; one cat is difficult."""
    base = root / folder / "VOCdevkit" / "VOC2007"
    splits = {"train": range(3), "val": range(3, 6), "trainval": range(6), "test": range(6, 9)}
    for i in range(9):
        put(base / "JPEGImages" / f"{i:06d}.jpg", encoded(i, "JPEG"))
    for cls in CLASSES:
        for split, chosen in splits.items():
            mark = dict.fromkeys(chosen, "-1")
            if cls == "cat":
                mark |= {i: "0" if i == 4 else " 1" for i in chosen if i % 2 == 0}
            if cls == "dog":
                mark |= {i: " 1" for i in chosen if i % 3 == 0}
            lines(base / "ImageSets" / "Main" / f"{cls}_{split}.txt", [f"{i:06d} {mark[i]}" for i in chosen])
    return base


def write_vtab(root, task="dsprites_loc"):
    base = root / "vtab-1k" / task
    for split, count in (("train800", 800), ("val200", 200), ("test", 3)):
        lines(base / f"{split}.txt", [f"images/{split}/{i:06d}.jpg {i % 4}" for i in range(count)])
    for i in range(3):
        put(base / "images" / "test" / f"{i:06d}.jpg", encoded(i, "PNG"))
    return base
