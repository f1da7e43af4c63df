"""The transfer sets that torchvision reads: a small archive of each in the published layout, and a damaged one."""

import json
import pickle

import numpy as np
import pytest
from datahelp import encoded, idx, pixels, put
from scipy.io import savemat

import bench
from bench.data.opening import open_data
from bench.errors import BenchError


def write_food101(root):
    base = root / "food101" / "food-101"
    for split, numbers in (("train", (3, 1)), ("test", (2,))):
        listed = {name: [f"{name}/{number}" for number in numbers] for name in ("waffles", "apple_pie")}
        for name, files in listed.items():
            for place, file in enumerate(files):
                put(base / "images" / f"{file}.jpg", encoded(hash_of(name) + place + 10 * len(files), "PNG"))
        put(base / "meta" / f"{split}.json", json.dumps(listed).encode())
    return base / "meta" / "test.json"


def hash_of(name):
    return sum(map(ord, name))


def write_flowers102(root):
    base = root / "flowers102" / "flowers-102"
    for number in range(1, 8):
        put(base / "jpg" / f"image_{number:05d}.jpg", encoded(number, "PNG"))
    # Labels count from 1; the published split learns from train and validation.
    savemat(base / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 1, 2, 2]])})
    savemat(
        base / "setid.mat", {"trnid": np.array([[1, 2]]), "valid": np.array([[4, 7]]), "tstid": np.array([[3, 5, 6]])}
    )
    return base / "setid.mat"


def write_pets(root):
    base = root / "pets" / "oxford-iiit-pet"
    rows = {"trainval": ["Abyssinian_100 1 1 1", "basset_hound_9 2 2 1"], "test": ["Abyssinian_2 1 1 1"]}
    for split, lines in rows.items():
        put(base / "annotations" / f"{split}.txt", ("\n".join(lines) + "\n").encode())
        for line in lines:
            put(base / "images" / f"{line.split()[0]}.jpg", encoded(hash_of(line), "PNG"))
    return base / "annotations" / "test.txt"


def write_aircraft(root):
    base = root / "aircraft" / "fgvc-aircraft-2013b" / "data"
    put(base / "variants.txt", b"707-320\nA380\n")
    number = 34_000
    for split, names in (("train", ("A380", "707-320")), ("val", ("A380",)), ("test", ("707-320", "A380"))):
        lines = []
        for name in names:
            number += 1
            put(base / "images" / f"{number:07d}.jpg", encoded(number, "PNG"))
            lines.append(f"{number:07d} {name}")
        put(base / f"images_variant_{split}.txt", ("\n".join(lines) + "\n").encode())
    return base / "images_variant_test.txt"


def write_cars(root):
    base = root / "cars" / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    kind = np.dtype([(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")])
    for split, path, labels in (
        ("train", "devkit/cars_train_annos.mat", (2, 1, 2)),
        ("test", "cars_test_annos_withlabels.mat", (1, 2)),
    ):
        rows = np.array([(1, 1, 5, 5, label, f"{i + 1:05d}.jpg") for i, label in enumerate(labels)], dtype=kind)
        savemat(base / path, {"annotations": rows[None]})
        for i in range(len(labels)):
            put(base / f"cars_{split}" / f"{i + 1:05d}.jpg", encoded(i + 10 * len(labels), "PNG"))
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": names[None]})
    return base / "cars_test_annos_withlabels.mat"


def write_gtsrb(root):
    base = root / "gtsrb" / "gtsrb"
    for label in (0, 1):
        for i in range(2):
            put(base / "GTSRB" / "Training" / f"{label:05d}" / f"0000{i}.ppm", encoded(10 * label + i, "PPM"))
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for i, label in enumerate((1, 0, 1)):
        put(base / "GTSRB" / "Final_Test" / "Images" / f"{i:05d}.ppm", encoded(50 + i, "PPM"))
        lines.append(f"{i:05d}.ppm;8;8;1;1;7;7;{label}")
    return put(base / "GT-final_test.csv", "\n".join(lines).encode())


def write_mnist(root):
    base = root / "mnist" / "MNIST" / "raw"
    for stem, n in (("train", 6), ("t10k", 3)):
        put(base / f"{stem}-images-idx3-ubyte", idx(np.arange(n * 784).reshape(n, 28, 28).astype(np.uint8)))
        last = put(base / f"{stem}-labels-idx1-ubyte", idx((np.arange(n) % 3).astype(np.uint8)))
    return last


def write_stl10(root):
    base = root / "stl10" / "stl10_binary"
    for split, n in (("train", 4), ("test", 2)):
        columns = np.stack([np.asarray(pixels(i, 96)) for i in range(n)]).transpose(0, 3, 2, 1)
        put(base / f"{split}_X.bin", columns.tobytes())
        put(base / f"{split}_y.bin", (np.arange(n) % 10 + 1).astype(np.uint8).tobytes())
    put(base / "class_names.txt", "\n".join(f"c{i}" for i in range(10)).encode())
    return base / "train_X.bin"


def write_svhn(root):
    for split, n in (("train", 3), ("test", 2)):
        images = np.stack([pixels(i + n, 32) for i in range(n)], axis=-1)
        last = root / "svhn" / f"{split}_32x32.mat"
        last.parent.mkdir(exist_ok=True)
        savemat(last, {"X": images, "y": np.array([[10, 1, 2]]).T[:n]})
    return last


def write_cifar100(root):
    base = root / "cifar100" / "cifar-100-python"
    for split, labels in (("train", [3, 0, 99]), ("test", [99, 3])):
        data = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        last = put(base / split, pickle.dumps({"data": data, "fine_labels": labels}))
    put(base / "meta", pickle.dumps({"fine_label_names": [f"c{i:02d}" for i in range(100)]}))
    return last


ARCHIVES = {
    "food101": (write_food101, [0, 0, 1, 1], [0, 1], "apple_pie"),
    "flowers102": (write_flowers102, [0, 1, 1, 1], [0, 0, 1], None),
    "pets": (write_pets, [0, 1], [0], "Abyssinian"),
    "aircraft": (write_aircraft, [1, 0, 1], [0, 1], "707-320"),
    "cars": (write_cars, [1, 0, 1], [0, 1], "AM General Hummer SUV 2000"),
    "gtsrb": (write_gtsrb, [0, 0, 1, 1], [1, 0, 1], None),
    "mnist": (write_mnist, [0, 1, 2, 0, 1, 2], [0, 1, 2], None),
    "stl10": (write_stl10, [0, 1, 2, 3], [0, 1], "c0"),
    "svhn": (write_svhn, [0, 1, 2], [0, 1], None),
    "cifar100": (write_cifar100, [0, 3, 99], [3, 99], "c00"),
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    # The digest of a published file is that of the published file alone.
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda path, *_: True)
    monkeypatch.setattr("torchvision.datasets.STL10._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.SVHN._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.CIFAR100._check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    return tmp_path


@pytest.mark.parametrize("name", ARCHIVES)
def test_labels_splits_and_names_are_the_published_ones(root, name):
    write, train_labels, test_labels, first = ARCHIVES[name]
    write(root)
    train, test = open_data(name)
    assert (train.name, test.name) == (name, name)
    assert (sorted(train.labels.tolist()), sorted(test.labels.tolist())) == (sorted(train_labels), sorted(test_labels))
    assert train.class_ids == test.class_ids
    if first:
        assert train.classes[0].replace(" ", "_") == first.replace(" ", "_")
    assert {np.asarray(train.image(i)).shape[:2] for i in range(len(train))} in (
        {(8, 8)},
        {(28, 28)},
        {(32, 32)},
        {(96, 96)},
    )
    assert train.fingerprint != test.fingerprint
    assert train.fingerprint == open_data(name).train.fingerprint


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("how", ["cut", "gone", "rubbish"])
def test_a_damaged_archive_is_one_sentence(root, name, how):
    path = ARCHIVES[name][0](root)
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 3] if how == "cut" else b"\x00\xff;;rubbish\n" * 3)
    with pytest.raises(BenchError) as refusal:
        open_data(name)
    assert name in str(refusal.value).lower().replace("oxfordiiitpet", "pets").replace("stanfordcars", "cars")
    assert "\n" not in str(refusal.value)


def test_the_published_validation_part(root):
    for name, held in (("flowers102", [False, False, True, True]), ("aircraft", [False, False, True])):
        ARCHIVES[name][0](root)
        assert sorted(open_data(name).train.validation.tolist()) == held


def test_an_image_that_a_list_names_and_nobody_has(root):
    write_pets(root)
    (root / "pets" / "oxford-iiit-pet" / "images" / "Abyssinian_2.jpg").unlink()
    with pytest.raises(BenchError, match=r"Abyssinian_2\.jpg"):
        bench.run("demo:mobilenetv2@32", ["knn"], "pets", settings={"knn.k": 1, "knn.headline_k": 1}, workers=0)


def test_eurosat_has_no_division_and_is_held_out_by_name(root):
    for name in ("Forest", "River"):
        for i in range(12):
            put(root / "eurosat" / "eurosat" / "2750" / name / f"{name}_{i}.jpg", encoded(i + len(name), "PNG"))
    train, test = open_data("eurosat")
    assert (len(train) + len(test), test.split, train.classes) == (24, "holdout", ("Forest", "River"))
    assert not set(train.ids) & set(test.ids)
    (root / "eurosat" / "eurosat" / "2750").rename(root / "eurosat" / "elsewhere")
    with pytest.raises(BenchError, match="EuroSAT"):
        open_data("eurosat")


def test_caltech101_without_the_images_of_a_class_or_at_all(root):
    base = root / "caltech101" / "101_ObjectCategories"
    for name in ("ant", "bonsai"):
        (base / name).mkdir(parents=True)
    with pytest.raises(BenchError, match="caltech101"):
        open_data("caltech101")
