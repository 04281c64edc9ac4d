"""Stage `check`: all of params.yaml and the locked versions are read, so that a mistake stops before any work."""

from importlib.metadata import version
from pathlib import Path

from pipeline import approaches
from pipeline.base.errors import run_as_command
from pipeline.base.files import write_json, write_text
from pipeline.base.params import load_params
from pipeline.learning.devices import choose_device
from pipeline.learning.key import locked_versions


def main() -> None:
    """Write the same answer whenever params.yaml is valid, and the locked versions of the libraries that compute.

    What follows depends on these two files, so it runs again because of its own params and those libraries alone.
    """
    params = load_params()
    for model in approaches.models(params).values():
        model.approach.check(model.params)
    choose_device(params.device, processes=params.processes)
    locked = locked_versions(Path("requirements.lock"))
    for name, wanted in locked.items():
        if (installed := version(name)) != wanted:
            print(f"warning: {name} is {installed} here, requirements.lock has {wanted}: results may differ")
    write_text(Path(".cache/params-are-valid"), "params.yaml is valid\n")
    write_json(Path(".cache/libraries.json"), locked)


if __name__ == "__main__":
    run_as_command(main)
