"""Mean and variance with a gradient of their own: against torch's, which is worked out formula by formula."""

from __future__ import annotations

import pytest
import torch

from bnprobe.experiments.synthesize.moments import moments


@pytest.mark.parametrize("shape", [(7, 5, 12), (1, 2, 3), (9, 3, 1)])
def test_moments_and_their_gradient_are_those_of_torch(shape: tuple[int, ...]) -> None:
    """Fails if a divisor, the mean in the slope or a channel is lost: of a skewed batch far from zero, in float64."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(shape, generator=generator, dtype=torch.float64) ** 3 * 4 + 50
    to_mean, to_var = torch.randn(2, shape[1], generator=generator, dtype=torch.float64)
    ours, plain = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    mean, var = moments(ours)
    expected = plain.mean((0, 2)), plain.var((0, 2), correction=0)
    assert torch.allclose(mean, expected[0], rtol=1e-12)
    assert torch.allclose(var, expected[1], rtol=1e-9)
    for found in ((mean, var), expected):
        ((to_mean * found[0]).sum() + (to_var * found[1]).sum()).backward()
    assert torch.allclose(ours.grad, plain.grad, rtol=1e-9, atol=1e-12)  # type: ignore[arg-type]


def test_variance_far_from_zero_is_no_difference_of_squares() -> None:
    """Fails if the variance is the mean square less the squared mean: in float32 nothing of it would be left here."""
    rows = torch.randn(20, 3, 50, generator=torch.Generator().manual_seed(0)) + 1e4
    assert torch.allclose(moments(rows)[1], rows.double().var((0, 2), correction=0).float(), rtol=1e-2)
