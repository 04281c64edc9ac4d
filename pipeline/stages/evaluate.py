"""Stage `evaluate`: the answers of each model -> its metrics, a table of all curves, a table of all test answers."""

from pipeline.base.errors import run_as_command
from pipeline.base.files import METRICS, REPORTS, RESULTS, atomic, write_json
from pipeline.results.metrics import confusion_table, curves_table, measure
from pipeline.results.result import listed, read, result_digest


def main() -> None:
    """Measure every result folder that dvc.yaml lists for this stage."""
    results = [read(folder) for folder in listed()]
    for result in results:
        metrics = measure(result)
        write_json(METRICS / f"{result.name}.json", metrics.model_dump(exclude_none=True))
        print(f"{result.name}: {metrics.summary()}")
    for name, table in (("curves", curves_table(results)), ("confusion", confusion_table(results))):
        with atomic(REPORTS / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    write_json(RESULTS, {result.name: result_digest(result.folder) for result in results})


if __name__ == "__main__":
    run_as_command(main)
