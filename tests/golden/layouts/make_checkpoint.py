#!/usr/bin/env python3
"""Write an official-layout checkpoint from a fixture manifest (torch + numpy only).

    python make_checkpoint.py dino-vit_small16/manifest.json out.pth
    python make_checkpoint.py ... out.pth --variant backbone   # another official file of the same weights
    python make_checkpoint.py ... out.pth --unsafe-args        # also the pickled objects official code stores
    python make_checkpoint.py manifest.json --list             # variants and what --unsafe-args would add

Every floating tensor is regenerated from its key (see README.md); integer buffers and the few
floating buffers that official code computes come from buffers.npz beside the manifest.
"""

import argparse
import collections
import contextlib
import fnmatch
import hashlib
import json
import os
import pathlib
import sys
import types

import numpy as np
import torch


def philox(text):
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.Generator(np.random.Philox(key=seed))


def fill(key, shape, gain=1.0):
    """The deterministic float32 value of the tensor called `key` (gain: for tensors of two or more dimensions)."""
    shape = tuple(shape)
    n = philox(key).standard_normal(shape, dtype=np.float32)
    n = np.asarray(n, dtype=np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if len(shape) >= 2:
        return n * np.float32(gain / np.sqrt(float(np.prod(shape[1:], dtype=np.int64))))
    if leaf == "running_var":
        return np.float32(1) + np.float32(0.1) * np.abs(n)
    if leaf == "running_mean":
        return np.float32(0.1) * n
    if leaf == "weight" and len(shape) == 1:
        return np.float32(1) + np.float32(0.1) * n
    return np.float32(0.02) * n


def make_input(manifest):
    spec = manifest["input"]
    return philox(spec["key"]).standard_normal(tuple(spec["shape"]), dtype=np.float32)


FOREIGN = {}  # (module, class name) -> stand-in class


@contextlib.contextmanager
def stand_ins():
    """While pickling, let the stand-in classes be found under the names that official code's objects have."""
    before = {}
    attrs = []
    for (module, name), cls in FOREIGN.items():
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            dotted = ".".join(parts[:i])
            if dotted not in before:
                before[dotted] = sys.modules.get(dotted)
                if before[dotted] is None:
                    sys.modules[dotted] = types.ModuleType(dotted)
        attrs.append((sys.modules[module], name, getattr(sys.modules[module], name, None)))
        setattr(sys.modules[module], name, cls)
    try:
        yield
    finally:
        for holder, name, old in attrs:
            delattr(holder, name) if old is None else setattr(holder, name, old)
        for dotted, old in before.items():
            if old is None:
                del sys.modules[dotted]


class Builder:
    def __init__(self, manifest, folder, unsafe):
        self.unsafe = unsafe
        self.manifest = manifest
        path = os.path.join(folder, "buffers.npz")
        self.buffers = dict(np.load(path)) if os.path.exists(path) else {}

    def tensor(self, row, salt, gains=()):
        key, shape, dtype = row[:3]
        gain = next((g for pattern, g in gains if fnmatch.fnmatchcase(key, pattern)), 1.0)
        source = row[3] if len(row) > 3 else "fill"
        kind = getattr(torch, dtype)
        if source == "fill":
            return torch.from_numpy(np.array(fill(salt + key, shape, gain))).to(kind)
        if source == "zeros":
            return torch.zeros(tuple(shape), dtype=kind)
        if source.startswith("npz:"):
            return torch.from_numpy(np.array(self.buffers[source[4:]])).to(kind).reshape(tuple(shape))
        raise ValueError(source)

    def tensors(self, node):
        out = collections.OrderedDict() if node.get("class") == "OrderedDict" else {}
        for row in node["tensors"]:
            source = row[3] if len(row) > 3 else "fill"
            out[row[0]] = (
                out[source[6:]]
                if source.startswith("alias:")
                else self.tensor(row, node.get("salt", ""), node.get("gain", ()))
            )
        return out

    def find(self, path):
        node = self.manifest["structure"]
        for part in path:
            node = dict(node["items"])[part]
        return node

    def derived(self, node):
        """Keys of another container, selected and renamed, values unchanged."""
        source = self.tensors(self.find(node["from"]))
        out = collections.OrderedDict() if node.get("class") == "OrderedDict" else {}
        for key, value in source.items():
            if not any(fnmatch.fnmatchcase(key, p) for p in node.get("keep", ["*"])):
                continue
            if any(fnmatch.fnmatchcase(key, p) for p in node.get("drop", [])):
                continue
            strip = node.get("strip", "")
            if strip and key.startswith(strip):
                key = key[len(strip) :]
            for old, new in node.get("replace", []):
                key = key.replace(old, new)
            out[node.get("add", "") + key] = value
        return out

    def foreign(self, node):
        """An instance of a class of a library that need not be installed here: only its pickled name matters."""
        module, name = node["module"], node["class"]
        base = {"dict": dict, "object": object}[node.get("base", "object")]
        if (module, name) not in FOREIGN:
            FOREIGN[module, name] = type(name, (base,), {"__module__": module, "__qualname__": name})
        cls = FOREIGN[module, name]
        items = {k: self.build(v) for k, v in node.get("items", [])}
        if base is dict:
            return cls(items)
        obj = cls()
        obj.__dict__.update(items)
        return obj

    def build(self, node):
        kind = node["kind"]
        if kind in ("dict", "OrderedDict"):
            out = collections.OrderedDict() if kind == "OrderedDict" else {}
            for key, child in node["items"]:
                if child.get("unsafe") and not self.unsafe:
                    continue
                out[key] = self.build(child)
            return out
        if kind == "tensors":
            return self.tensors(node)
        if kind == "derived":
            return self.derived(node)
        if kind == "tensor":
            return self.tensor(node["tensor"], node.get("salt", ""))
        if kind == "list":
            return [self.build(c) for c in node["items"]]
        if kind == "tuple":
            return tuple(self.build(c) for c in node["items"])
        if kind == "namespace":
            return argparse.Namespace(**{k: self.build(v) for k, v in node["items"]})
        if kind == "path":
            return pathlib.PosixPath(node["value"])
        if kind == "numpy":
            return getattr(np, node["type"])(node["value"])
        if kind == "foreign":
            return self.foreign(node)
        if kind == "value":
            return node["value"]
        raise ValueError(kind)


def script_archive(state):
    """A TorchScript archive whose state_dict() has these keys (no forward): the shape of CLIP's official .pt."""
    root = torch.nn.Module()
    for key, value in state.items():
        *path, leaf = key.split(".")
        mod = root
        for part in path:
            if part not in mod._modules:
                mod.add_module(part, torch.nn.Module())
            mod = mod._modules[part]
        if value.is_floating_point():
            mod.register_parameter(leaf, torch.nn.Parameter(value, requires_grad=False))
        else:
            mod.register_buffer(leaf, value)
    return torch.jit.script(root)


def write_safetensors(state, path):
    names = {"float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "bool": "BOOL"}
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for key, value in state.items():
        raw = value.contiguous().numpy().tobytes()
        kind = names[str(value.dtype).replace("torch.", "")]
        header[key] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + len(raw)]}
        blobs.append(raw)
        at += len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for raw in blobs:
            f.write(raw)


def load_manifest(path):
    with open(path) as f:
        return json.load(f)


def make(manifest_path, unsafe=False, variant=None):
    manifest = load_manifest(manifest_path)
    builder = Builder(manifest, os.path.dirname(os.path.abspath(manifest_path)), unsafe)
    node = manifest["structure"]
    if variant:
        node = manifest["variants"][variant]["structure"]
    return builder.build(node)


def save(obj, path, form):
    if form == "torchscript":
        torch.jit.save(script_archive(obj), path)
    elif form == "folder":  # Hugging Face: config.json + model.safetensors
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, "config.json"), "w") as f:
            json.dump(obj["config.json"], f, indent=1)
        write_safetensors(obj["model.safetensors"], os.path.join(path, "model.safetensors"))
    else:
        with stand_ins():
            torch.save(obj, path)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("manifest")
    ap.add_argument("out", nargs="?")
    ap.add_argument("--variant")
    ap.add_argument("--unsafe-args", action="store_true")
    ap.add_argument("--list", action="store_true")
    a = ap.parse_args()
    manifest = load_manifest(a.manifest)
    if a.list or not a.out:
        print("main:", manifest["file"])
        for name, v in manifest.get("variants", {}).items():
            print("variant", name + ":", v["file"], "-", v.get("note", ""))
        print("unsafe:", manifest.get("unsafe_members", []))
        return
    info = manifest["variants"][a.variant] if a.variant else manifest
    save(make(a.manifest, a.unsafe_args, a.variant), a.out, info["file"].get("form", "torch"))
    print("wrote", a.out)


if __name__ == "__main__":
    main()
