"""A grid search of scikit-learn whose fits run on the fleet, by joblib.

    pip install scikit-learn          # here, and where the workers are
    python examples/grid_search.py [URL]

The address is the first argument, or EVERFAAS_URL, or http://127.0.0.1:8000. It looks for the parameters of a support
vector machine that tells handwritten digits apart.
"""

from __future__ import annotations

import sys

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from everfaas_core import ApiUnreachable, Client, NotLoadable, register_joblib

GRID = {"C": [1, 10, 100], "gamma": [0.0001, 0.0005, 0.002]}
FOLDS = 3


def main() -> None:
    digits = load_digits()  # 1,797 pictures of 8 × 8 pixels, part of scikit-learn
    search = GridSearchCV(SVC(), GRID, cv=FOLDS)

    with Client(sys.argv[1] if len(sys.argv) > 1 else None) as client:
        register_joblib(client, timeout_s=300)
        with joblib.parallel_config(
            backend="everfaas"
        ):  # n_jobs means slots of the fleet from here on: all, as it is not set
            search.fit(digits.data, digits.target)

    for found, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
        print(f"C={found['C']:<5g} gamma={found['gamma']:<8g} {score:.1%}")
    best = search.best_params_
    print(f"best: C={best['C']:g} and gamma={best['gamma']:g}, which tell {search.best_score_:.1%} of the digits right")


if __name__ == "__main__":
    try:
        main()
    except (ApiUnreachable, NotLoadable) as error:  # they say how to start one, and what a worker can't import
        sys.exit(str(error))
