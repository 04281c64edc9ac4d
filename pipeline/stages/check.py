"""Stage `check`: read all of params.yaml and the locked versions, so that a mistake shows before any work."""

from importlib.metadata import version
from pathlib import Path

from pipeline import approaches
from pipeline.base.errors import run_as_command
from pipeline.base.files import write_json, write_text
from pipeline.base.params import load_params
from pipeline.learning.devices import choose_device
from pipeline.learning.key import locked_versions


def main() -> None:
    """Write a file that is the same for every valid params.yaml, and the locked versions of the computing libraries.

    Later stages depend on these two files. So they run again only for their own params and for those libraries.
    """
    params = load_params()
    for model in approaches.models(params).values():
        model.approach.check(model.params)
    choose_device(params.device, processes=params.processes)
    locked = locked_versions(Path("requirements.lock"))
    for name, versions in locked.items():
        if (installed := version(name)) not in versions:
            print(f"warning: {name} {installed} is installed, but the lock has {versions[0]}: results may differ")
    write_text(Path(".cache/params-are-valid"), "params.yaml is valid\n")
    write_json(Path(".cache/libraries.json"), locked)


if __name__ == "__main__":
    run_as_command(main)
