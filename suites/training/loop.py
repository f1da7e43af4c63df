"""The training loop: see `suites.training` for what it is given and what it promises."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from bench.cpu import kept_memory
from bench.device import Precision, float32_products, is_out_of_memory
from bench.errors import BenchError
from suites.training import processes, ranks
from suites.training.curve import Curve
from suites.training.feed import Collate, Samples, feed, made, own_randomness, seed_all, to_device
from suites.training.length import Length
from suites.training.measured import LARGEST, estimate, plan_line
from suites.training.order import Order, draw_seed
from suites.training.schedule import Schedule
from suites.training.state import Checkpoint, identity_of, interruptible
from suites.training.synced import synchronised

if TYPE_CHECKING:
    from timm.utils import ModelEmaV3

    from bench.progress import Progress

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Trained:
    """The network at the end, and what the record keeps of the way there."""

    network: nn.Module
    """The module given, or the average of its weights where one was asked for; in eval mode."""
    curve: list[dict[str, float]]
    """At most 200 points: ``iteration``, ``epoch``, ``lr``, and the mean of every loss since the point before."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Iterations, epochs, total batch, images at once, processes, learning rate, parameters learned."""

    def details(self) -> dict[str, Any]:
        """For `Measurement.details`."""
        return {"training": self.facts, "curve": self.curve}


def train(
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: Samples,
    *,
    length: Length,
    schedule: Schedule,
    device: torch.device | str,
    progress: Progress,
    precision: Precision = "fp32",
    seed: int = 0,
    name: str = "training",
    folder: Path | None = None,
    identity: Any = None,
    micro: int | None = None,
    workers: int = 0,
    collate: Collate | None = None,
    clip: float | None = None,
    average: float | None = None,
    every: int | None = None,
    sync: bool = False,
) -> Trained:
    """Train ``model`` in place for ``length`` and return it in eval mode.

    ``optimiser``: over parameters of ``model``; a group's ``lr_scale`` multiplies the schedule. ``precision``: autocast
    for ``bf16`` and ``fp16`` (the latter with scaled gradients). ``micro``: images that go through the network at once;
    None takes as many as the device holds. ``clip``: the largest norm of the whole gradient. ``average``: decay of the
    moving average of the weights (timm's ModelEmaV3), which is then what is returned. ``folder``: where an interrupted
    training is kept, and taken over from when ``identity`` (any JSON value) and all of the above are the same.
    ``every``: iterations between checkpoints; None: an epoch. ``sync``: batch norms in train mode take their statistics
    over the images of all processes.

    With $BENCH_PROCESSES above 1 so many processes share every batch, on a GPU each where ``device`` is one: ``model``,
    ``samples`` and ``collate`` are then sent to them and must be picklable. Where this process is already one of a
    group, the group shares the batches.

    Raises `BenchError` when the device cannot hold a step, when the loss is not finite, and what ``samples`` raise.
    """
    options: dict[str, Any] = {
        "length": length, "schedule": schedule, "precision": precision, "seed": seed, "name": name, "micro": micro,
        "workers": workers, "collate": collate, "clip": clip, "average": average, "every": every or length.per_epoch,
        "sync": sync,
    }  # fmt: skip
    device = torch.device(device)
    count = 1 if ranks.joined() else processes.asked()
    if count > 1:
        with tempfile.TemporaryDirectory(prefix="bench-training-") as place:
            folder = folder or Path(place)
            job = {"model": model, "optimiser": optimiser, "samples": samples, **options, "identity": identity}
            job |= {"folder": folder, "device": str(device), "quiet": progress.quiet}
            processes.share(job, count, device, name)
            return _alone(model, optimiser, samples, device, progress, options, folder, identity)
    return _alone(model, optimiser, samples, device, progress, options, folder, identity)


def _alone(
    model: nn.Module, optimiser: torch.optim.Optimizer, samples: Samples, device: torch.device, progress: Progress,
    options: dict[str, Any], folder: Path | None, identity: Any,
) -> Trained:  # fmt: skip
    """What this process does of a training: its share under several ranks, all of it otherwise."""
    training = _Training(model=model, optimiser=optimiser, samples=samples, device=device, progress=progress, **options)
    kept = kept_memory() if device.type == "cpu" else nullcontext()
    with own_randomness(), _steady(device), kept:
        try:
            return training.run(folder, identity)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise BenchError(
                f"{training.name}: batch normalisation needs two images or more at once, and a step holds one: "
                f"train with a larger batch"
            ) from error


@dataclass
class _Training:
    model: nn.Module
    optimiser: torch.optim.Optimizer
    samples: Samples
    length: Length
    schedule: Schedule
    device: torch.device
    progress: Progress
    precision: Precision
    seed: int
    name: str
    micro: int | None
    workers: int
    collate: Collate | None
    clip: float | None
    average: float | None
    every: int
    sync: bool
    _noted: float = 0.0
    _shown: str = ""

    def run(self, folder: Path | None, identity: Any) -> Trained:
        if self.length.batch < ranks.world():
            raise BenchError(
                f"{self.name}: {ranks.world()} processes cannot share batches of {self.length.batch}: "
                f"start fewer, or train with a larger batch"
            )
        self.order = Order(self.length, self.seed)
        self.model.to(self.device).train()
        if not any(parameter.ndim == 5 for parameter in self.model.parameters()):
            # Channels innermost: convolutions are up to twice as fast, on CPUs as on GPUs.
            self.model.to(memory_format=torch.channels_last)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        checkpoint = Checkpoint(
            folder,
            identity_of(
                self.model, self.optimiser, self.device, identity,
                [self.length, self.schedule, self.precision, self.seed, self.clip, self.average],
            ),
            self.progress,
        )  # fmt: skip
        state = checkpoint.load()
        first = 0
        self.processes = ranks.world()
        if state is not None:
            self.model.load_state_dict(state["model"])
        self.ema = self._average()
        self.curve = Curve(self.length, self.device)
        if state is not None:
            first = int(state["iteration"])
            self._take_over(state)
            if first < self.length.iterations:
                self.progress.say(f"{self.name}: taken over at iteration {first:,} of {self.length.iterations:,}")
        else:
            self._plan()
        if first < self.length.iterations:
            self._train(first, checkpoint)
        trained = self.ema.module if self.ema is not None else self.model
        return Trained(cast(nn.Module, trained).eval(), self.curve.points, self._facts())

    def _average(self) -> ModelEmaV3 | None:
        if self.average is None:
            return None
        from timm.utils import ModelEmaV3

        return ModelEmaV3(self.model, decay=self.average)

    def _train(self, first: int, checkpoint: Checkpoint) -> None:
        pieces = self._mine()
        network = self._distributed()
        self.curve.share = sum(map(len, pieces)) / self.length.batch
        feeding = feed(
            self.samples, self.order, pieces, range(first, self.length.iterations),
            collate=self.collate, workers=self.workers, pin=self.device.type == "cuda",
        )  # fmt: skip
        with (
            closing(feeding) as batches,
            interruptible() as asked,
            self.progress.stage(self.name, self.length.iterations * self.length.batch, self.noun) as stage,
        ):
            stage.skip(first * self.length.batch)
            for iteration in range(first, self.length.iterations):
                try:
                    self._step(network, iteration, pieces, batches)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise BenchError(
                        f"{self.name}: the memory of {self.device} ran out at iteration {iteration} with {self.micro} "
                        f"{self.noun} at once; what was finished is kept: run the same command again with a smaller "
                        f"--batch"
                    ) from error
                done = iteration + 1
                stage.advance(self.length.batch, self._note())
                last = done == self.length.iterations
                due = checkpoint.due(epoch_ends=done % self.every == 0)
                if last or due or asked.signal is not None:
                    # A loss that is no number must not become what the next run starts from.
                    self._refuse_unless_finite()
                    checkpoint.save(self._state(done))
                if asked.signal is not None:
                    break

    def _step(self, network: nn.Module, iteration: int, pieces: list[range], batches: Iterator[Any]) -> None:
        """One iteration: the pieces of this process forward and backward, then one step of the optimiser."""
        rate = self.schedule.rate(iteration)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        losses: dict[str, Tensor] = {}
        for number, piece in enumerate(pieces):
            batch = to_device(next(batches), self.device)
            seed_all(draw_seed(self.seed, iteration, -1 - piece.start))
            share = len(piece) / self.length.batch
            last = number == len(pieces) - 1
            with nullcontext() if last else _no_sync(network):
                terms = self._backward(network, batch, share)
            for term, value in terms.items():
                losses[term] = losses.get(term, 0.0) + share * value.detach().double()
        if self.clip is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], self.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, step=iteration + 1)
        self.curve.add(iteration, rate, losses)

    def _backward(self, network: nn.Module, batch: Any, share: float) -> dict[str, Tensor]:
        dtype = _DTYPES.get(self.precision)
        with torch.autocast(self.device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            found = network(batch)
        terms: dict[str, Tensor] = found if isinstance(found, dict) else {"loss": found}
        # Ranks are averaged by DistributedDataParallel: their number undoes that, so that every image counts alike.
        loss = torch.stack([value.float() for value in terms.values()]).sum() * (share * ranks.world())
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return terms

    def _mine(self) -> list[range]:
        """The pieces of this process, consecutive: equally many for each, or processes would wait for each other."""
        assert self.micro is not None
        world, rank = ranks.world(), ranks.rank()
        pieces = self.length.pieces(min(self.micro, self._share()), world)
        count = len(pieces)
        return pieces[count * rank // world : count * (rank + 1) // world]

    def _distributed(self) -> nn.Module:
        if not ranks.joined():
            return self.model
        if self.sync:
            self.model = synchronised(self.model, self.device)
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(self.model, device_ids=devices, find_unused_parameters=True)

    def _plan(self) -> None:
        """Choose how many images go through at once, and say what is about to happen."""
        length = self.length
        micro = min(self._share(), self.micro or LARGEST.get(self.device.type, 64))

        def make(count: int) -> Any:
            return to_device(made(self.samples, self.order, length, count, self.collate), self.device)

        def step(batch: Any) -> Tensor:
            seed_all(self.seed)
            terms = self._backward(self.model, batch, 1.0)
            return torch.stack([value.detach().float() for value in terms.values()]).sum()

        found = estimate(
            step, self.model, self.optimiser, make, device=self.device, micro=micro, multiple=length.multiple,
            chosen=self.micro is not None, average=self.average is not None, noun=self.noun,
        )  # fmt: skip
        # A refused first step of the gradient scaler must not be remembered.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.micro = min(ranks.everybodys(found.micro))
        if ranks.rank() == 0:
            self.progress.say(
                plan_line(
                    self.name,
                    self.length,
                    self.schedule,
                    self.optimiser,
                    self.precision,
                    found,
                    self.workers,
                    self.noun,
                )
            )

    def _take_over(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        self.curve.restore(state["curve"])
        done = state["iteration"] == self.length.iterations
        if done:
            self.processes = int(state["processes"])
        asked = min(self.micro, self._share()) if self.micro is not None and not done else state["micro"]
        if asked != state["micro"]:
            self.progress.warn(
                f"{self.name}: goes on with {asked} {self.noun} at once as asked, where the interrupted run had "
                f"{state['micro']}: not to the last bit what it would have become"
            )
        self.micro = int(asked)

    @property
    def noun(self) -> str:
        """What the samples say they are."""
        return getattr(self.samples, "noun", "images")

    def _share(self) -> int:
        """Images of a batch that one process has at least."""
        return max(self.length.multiple, self.length.batch // ranks.world())

    def _state(self, iteration: int) -> dict[str, Any]:
        return {
            "iteration": iteration,
            "micro": self.micro,
            "processes": ranks.world(),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else None,
            "curve": self.curve.state(),
        }

    def _facts(self) -> dict[str, Any]:
        return {
            "iterations": self.length.iterations,
            "epochs": self.length.epochs,
            "samples": self.length.samples,
            "batch": self.length.batch,
            "asked_batch": self.length.asked,
            "images_at_once": self.micro,
            "processes": self.processes,
            "learning_rate": self.schedule.peak,
            "optimiser": type(self.optimiser).__name__,
            "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
        }

    def _note(self) -> str:
        """The loss for the progress line; looked at now and then, for that waits for the device."""
        now = time.monotonic()
        if now - self._noted >= 1.0:
            self._noted = now
            self._shown = f"loss {self._refuse_unless_finite():.4g}"
        return self._shown

    def _refuse_unless_finite(self) -> float:
        loss = self.curve.latest()
        if not math.isfinite(loss):
            raise BenchError(
                f"{self.name}: the loss is {loss} at learning rate {self.schedule.peak:.4g}: lower the learning rate"
                f"{' or use --precision bf16 or fp32' if self.precision == 'fp16' else ''}"
            )
        return loss


def _no_sync(network: nn.Module) -> Any:
    return network.no_sync() if isinstance(network, nn.parallel.DistributedDataParallel) else nullcontext()


@contextmanager
def _steady(device: torch.device) -> Iterator[None]:
    """float32 is float32 (no TensorFloat-32), and convolutions are the deterministic ones; put back at the end."""
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        with float32_products(), torch.enable_grad():
            yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
