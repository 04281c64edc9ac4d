"""Stage `check`: the whole of params.yaml is read, so that a mistake anywhere in it stops before any work."""

from pathlib import Path

from pipeline.backbones import check_backbone
from pipeline.devices import choose_device
from pipeline.errors import run_as_command
from pipeline.files import atomic
from pipeline.params import load_params


def main() -> None:
    """Write the same answer whenever params.yaml is valid: what follows re-runs because of its own params alone."""
    params = load_params()
    choose_device(params.device, processes=params.processes)
    check_backbone(params.transfer.backbone, params.transfer.resolution, params.transfer.frozen_blocks)
    with atomic(Path(".cache/params-are-valid")) as temporary:
        temporary.write_text("params.yaml is valid\n")


if __name__ == "__main__":
    run_as_command(main)
