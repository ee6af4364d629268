"""What drevalpy does of the referee's run; it runs in drevalpy's own environment and knows nothing of ours.

python benchmarks/drevalpy_side.py run DATA RESULTS NAME MODE   its folds, its naive predictors
python benchmarks/drevalpy_side.py judge RESULTS NAME OUT.json  its measures of every model's predictions
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NAIVE = (
    "NaivePredictor", "NaiveDrugMeanPredictor", "NaiveCellLineMeanPredictor", "NaiveTissueDrugMeanPredictor",
    "NaiveMeanEffectsPredictor",
)  # fmt: skip
MEASURES = ["Pearson", "Spearman", "R^2", "RMSE", "MAE"]


def run(data: str, results: str, name: str, mode: str) -> None:
    """Let drevalpy split the data set and fit its naive predictors, fold by fold."""
    from drevalpy.datasets.loader import load_dataset
    from drevalpy.experiment import drug_response_experiment
    from drevalpy.models import MODEL_FACTORY

    known = load_dataset(name, path_data=data, measure="response", tissue_column="tissue")
    at = Path(results)
    drug_response_experiment(
        models=[MODEL_FACTORY[one] for one in NAIVE],
        response_data=known,
        run_id=at.name,
        test_mode=mode,
        n_cv_splits=5,
        path_out=str(at.parent),
        path_data=data,
        hyperparameter_tuning=False,
    )


def judge(results: str, name: str, out: str) -> None:
    """Let drevalpy measure every prediction file of a run, and write its own version beside what it says."""
    from importlib.metadata import version

    from drevalpy.datasets.dataset import DrugResponseDataset
    from drevalpy.evaluation import evaluate

    found: dict[str, dict[str, dict[str, float]]] = {}
    for path in sorted(Path(results, name).glob("*/*/predictions/predictions_split_*.csv")):
        table = DrugResponseDataset.from_csv(path, name)
        said = evaluate(table, MEASURES)
        model, fold = path.parts[-3], path.stem.rpartition("_")[2]
        found.setdefault(model, {})[fold] = {key: float(value) for key, value in said.items()}
    Path(out).write_text(json.dumps({"drevalpy": version("drevalpy"), "models": found}, indent=1))


if __name__ == "__main__":
    {"run": run, "judge": judge}[sys.argv[1]](*sys.argv[2:])
