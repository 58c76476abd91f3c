"""Python's garbage collector around our own imports."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from bnprobe.garbage import collector_paused


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_collector_is_as_it_was(on: bool, fails: bool) -> None:
    """Fails if it runs within the block, stays off after it, or is switched on where the user has switched it off."""
    (gc.enable if on else gc.disable)()
    try:
        try:
            with collector_paused(), collector_paused():
                assert not gc.isenabled()
                if fails:
                    raise KeyError
        except KeyError:
            pass
        assert gc.isenabled() == on
    finally:
        gc.enable()


FIRST_LOOK = """
import gc, torch, bnprobe
model = torch.nn.Sequential(torch.nn.BatchNorm1d(3)).eval()
walks = []
gc.callbacks.append(lambda phase, info: walks.append(phase))
with torch.no_grad(), bnprobe.attach(model):
    model(torch.randn(4, 3))
assert gc.isenabled()
print(walks.count("start"))
"""


def test_the_first_look_does_not_look_for_garbage_at_every_import() -> None:
    """Fails if the modules and compiled loops that a first look loads set the collector off: some 230 times."""
    run = subprocess.run([sys.executable, "-c", FIRST_LOOK], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 60
