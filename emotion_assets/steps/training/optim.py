"""One optimizer for all weights: Muon for the convolution filters, AdamW for the rest.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks") replaces a filter's
momentum by the nearest orthogonal matrix. On these faces it needs half as many epochs as SGD.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

# The authors' quintic iteration: fast, with singular values of about 1.
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS: Final = 4
_MOMENTUM: Final = 0.9
_BETAS: Final = (0.9, 0.99)
_EPSILON: Final = 1e-8


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return a matrix of the same shape with all singular values near 1, by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_NUM_ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x.T if tall else x
    return result


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon on the inner convolutions' filters, AdamW on stem, normalization and head."""

    def __init__(
        self,
        network: nn.Module,
        *,
        learning_rate: float,
        adam_learning_rate: float,
        weight_decay: float,
        work_dtype: torch.dtype = torch.float32,
    ) -> None:
        """Group the parameters of `network`: filters of more than one input channel go to Muon.

        AdamW's matrices get a tenth of `weight_decay`, scales and biases none. `work_dtype` is that of Muon's matrix
        products; bfloat16 is accurate enough.
        """
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        filters = [parameter for parameter in parameters if parameter.ndim == 4 and parameter.shape[1] > 1]
        others = [parameter for parameter in parameters if parameter.ndim != 4 or parameter.shape[1] == 1]
        matrices = [parameter for parameter in others if parameter.ndim > 1]
        vectors = [parameter for parameter in others if parameter.ndim == 1]
        muon = {"is_muon": True, "lr": learning_rate, "peak_lr": learning_rate}
        adam = {"is_muon": False, "lr": adam_learning_rate, "peak_lr": adam_learning_rate}
        groups = [
            {"params": filters, "weight_decay": weight_decay, **muon},
            {"params": matrices, "weight_decay": weight_decay / 10, **adam},
            {"params": vectors, "weight_decay": 0.0, **adam},
        ]
        super().__init__(groups, {})
        self._work_dtype = work_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; `closure`, if given, computes the gradients first and its value is returned."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._muon if group["is_muon"] else self._adam
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update(parameter, self.state[parameter]), alpha=-group["lr"])
        return loss

    def _muon(self, parameter: Tensor, state: dict[str, Any]) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        momentum: Tensor = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        direction = gradient.lerp(momentum, _MOMENTUM).flatten(1)
        num_rows, num_columns = direction.shape
        update: Tensor = orthogonalize(direction.to(self._work_dtype)) * max(1.0, num_rows / num_columns) ** 0.5
        return update.to(parameter.dtype).view_as(parameter)

    @staticmethod
    def _adam(parameter: Tensor, state: dict[str, Any]) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        mean: Tensor = state.setdefault("mean", torch.zeros_like(parameter))
        square: Tensor = state.setdefault("square", torch.zeros_like(parameter))
        state["num_steps"] = state.get("num_steps", 0) + 1
        mean.lerp_(gradient, 1 - _BETAS[0])
        square.lerp_(gradient.square(), 1 - _BETAS[1])
        unbiased_mean = mean / (1 - _BETAS[0] ** state["num_steps"])
        unbiased_square = square / (1 - _BETAS[1] ** state["num_steps"])
        update: Tensor = unbiased_mean / (unbiased_square.sqrt() + _EPSILON)
        return update
