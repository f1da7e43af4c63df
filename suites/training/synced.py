"""Batch norms whose statistics are over every process' images: what one process with the whole batch would compute."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from suites.training import ranks


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """``model`` with every batch norm synchronised; parameters and statistics are the same objects, names stay."""
    if device.type == "cuda":
        # Knows batch norms that carry their activation, which PyTorch's own conversion would drop.
        from timm.layers import convert_sync_batchnorm

        found: nn.Module = convert_sync_batchnorm(model)
        return found
    for name, part in list(model.named_children()):
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            setattr(model, name, Synced(part))
        else:
            synchronised(part, device)
    return model


class _Total(torch.autograd.Function):
    """The sum over the processes; so is its gradient, for the loss is one sum over them too."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class Synced(nn.Module):
    """A batch norm over all processes on devices that PyTorch's SyncBatchNorm does not know."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.__dict__["norm"] = norm  # Not a submodule: names in a checkpoint are those of the norm.
        for name, parameter in norm._parameters.items():
            self.register_parameter(name, parameter)
        for name, buffer in norm._buffers.items():
            self.register_buffer(name, buffer)
        for name, part in norm.named_children():
            self.add_module(name, part)
        self.training = norm.training

    def train(self, mode: bool = True) -> Synced:
        super().train(mode)
        self.__dict__["norm"].train(mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        norm: Any = self.__dict__["norm"]
        norm.training = self.training
        if not (self.training and ranks.joined()):
            found: Tensor = norm(x)
            return found
        dims = [d for d in range(x.ndim) if d != 1]
        wide = x.double()
        count = wide.new_tensor([x.numel() / x.shape[1]])
        total = _Total.apply(torch.cat([wide.sum(dims), wide.square().sum(dims), count]))
        sums, squares, number = total[: x.shape[1]], total[x.shape[1] : -1], total[-1].detach()
        mean = sums / number
        variance = (squares / number - mean.square()).clamp(min=0)
        if norm.track_running_stats:
            with torch.no_grad():
                norm.num_batches_tracked += 1
                share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
                norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
                unbiased = variance * number / (number - 1).clamp(min=1)
                norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
        shape = [1, -1] + [1] * (x.ndim - 2)
        result: Tensor = (wide - mean.view(shape)) * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            result = result * norm.weight.double().view(shape) + norm.bias.double().view(shape)
        result = result.to(x.dtype)
        # timm's batch norms may carry dropout and an activation.
        for name in ("drop", "act"):
            part = getattr(norm, name, None)
            if part is not None:
                result = part(result)
        return result
