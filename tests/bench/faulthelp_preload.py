"""What the server of `faulthelp` imports; it never runs anything of it."""

# ruff: noqa: F401
import faiss
import PIL.Image
import psutil
import pydantic.type_adapter
import rich.console
import rich.table
import safetensors.numpy
import safetensors.torch
import sklearn.manifold
import torchvision

import adapters.demo
import adapters.networks.cifar_resnet
import adapters.path
import adapters.trio_models
import bench.api
import bench.cli
import bench.data.demo_images
import bench.data.opening
import bench.engine
import bench.environment
import bench.extract
import bench.housekeeping
import bench.job
import bench.launchers
import bench.launchers.sending
import bench.ledger
import bench.listing
import bench.ranks
import bench.stored
import bench.sweep
import reports.terminal
import suites.candidates
import suites.drawing
import suites.knn
import suites.linear
import suites.logreg_path
import suites.portrait

PIL.Image.init()
