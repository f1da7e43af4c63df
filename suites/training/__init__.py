"""Training, for the suites that train a network: fine-tuning, detection, segmentation.

A suite brings four things and calls `suites.training.loop.train`:

- a module whose ``forward(batch)`` in train mode returns its losses: ``{"loss": ...}`` or several terms that are added
  up, each a mean over the images of the batch (a module's own ``train()`` may keep parts of it in eval mode);
- ``samples``: ``len`` and ``samples[i]``, which may draw from torch's, NumPy's and Python's random states as it likes,
  and ``collate``, which makes a batch of a list of samples (default: torch's);
- an optimiser, its groups with an optional ``lr_scale`` (`suites.training.groups` makes them, with layer decay);
- a `Length` (iterations or epochs of a total batch) and a `Schedule` (the learning rate of every iteration).

The loop does the rest: pieces of the total batch that fit the device, accumulated; autocast and gradient scaling by
precision; clipping; an average of the weights (EMA); a plan line before the start and a refusal of what cannot fit;
progress with loss, rate and time left; a curve for the record; checkpoints, written whole, in ``folder`` (`Task.folder`
is the place); the same total batch and result under torchrun.

Everything random is derived from (seed, iteration, place in the total batch) and from nothing else: what a sample looks
like and which units drop out do not depend on worker processes, on the number of ranks, or on where a run was resumed.
So an interrupted training goes on exactly, and no random state has to be kept.
"""
