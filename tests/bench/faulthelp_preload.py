"""What the server of `faulthelp` imports; it never runs anything of it."""

# ruff: noqa: F401
import faiss
import psutil
import rich.console
import rich.table
import torchvision

import adapters.demo
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
import bench.ledger
import bench.listing
import bench.ranks
import bench.sweep
import reports.terminal
import suites.candidates
import suites.knn
import suites.linear
import suites.logreg_path
