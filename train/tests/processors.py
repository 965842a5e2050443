"""All tests that compute, on other processors and numbers of threads.

`pytest train/tests/processors.py`: about a quarter of an hour for each setting on two cores, so the
nightly regression runs it.
"""

import itertools

import pytest

from train.tests.test_reproducibility import COMMON, OLD, run

NEW = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OPENBLAS_CORETYPE": "Haswell"}
THREADS = [{"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count} for count in ("1", "2")]
SETTINGS = {
    f"{kernels.get('ONEDNN_MAX_CPU_ISA', 'own')}-{threads['OMP_NUM_THREADS']}": {
        **kernels,
        **threads,
        "NIGHTLY": "0",
    }
    for kernels, threads in itertools.product((OLD, COMMON, NEW, {}), THREADS)
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("tests", ["train/tests", "model/tests"])
def test_everything(setting, tests):
    run(
        SETTINGS[setting],
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        tests,
        "--ignore=train/tests/test_reproducibility.py",
    )
