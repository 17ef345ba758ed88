"""The metrics by name, imported when the first test asks for one: they take seconds to import."""

import pytest


@pytest.fixture
def rouge():
    from tasks.evaluation.metrics.rouge import Rouge

    return Rouge()


@pytest.fixture
def bleu():
    from tasks.evaluation.metrics.bleu import Bleu

    return Bleu()


@pytest.fixture
def chrf():
    from tasks.evaluation.metrics.chrf import Chrf

    return Chrf()


@pytest.fixture
def metric(request):
    """The metric that a parameter names."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def sacrebleu_metrics():
    """The classes of sacrebleu that ours are compared with, by the name of our score."""
    from sacrebleu.metrics import BLEU, CHRF

    return {"bleu": BLEU, "chrf": CHRF}
