"""People, places and organisations that only a language model of the field recognises: presidio over spaCy.

This is the extra `presidio`. A spaCy model is installed apart, since its makers do not publish theirs on PyPI; its
name, or the directory it was saved to, stands in the configuration.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.contracts.errors import EnvironmentProblem
from tasks.contracts.jsonl import digest_of_directory
from tasks.contracts.store import library_versions
from tasks.data.personal.spans import Offsets, without_overlaps

_KINDS = {"PERSON": "PERSON", "LOCATION": "LOCATION", "NRP": "GROUP", "ORGANIZATION": "ORGANIZATION"}
"""presidio's entity → the kind it is counted under, in order of precedence."""
_HAN = re.compile("[\u4e00-\u9fff]")
_HAN_SHARE = 0.2
_INSTALL = "pip install 'llm-retrain[presidio]'"


class EntityFinder:
    """Named entities of texts in the languages that have a model."""

    def __init__(self, models: Mapping[str, str]) -> None:
        """Load the models.

        Args:
            models: language (ISO 639-1: en, zh) → installed spaCy model or directory.

        Raises:
            EnvironmentProblem: presidio or a model is not installed, or no model is named.
        """
        if not models:
            raise EnvironmentProblem(
                "the kind named_entity of the step personal needs a spaCy model: name one for each language in "
                "entity_models, for example {en: en_core_web_sm}"
            )
        if importlib.util.find_spec("presidio_analyzer") is None or importlib.util.find_spec("spacy") is None:
            raise EnvironmentProblem(f"the kind named_entity of the step personal needs presidio: {_INSTALL}")
        for language, model in models.items():
            _directory_of(language, model)
        self._languages = tuple(models)
        self._analyzer = _analyzer(models)

    def find(self, text: str) -> list[tuple[str, list[Offsets]]]:
        """Return the kinds that were found, each with where."""
        results = self._analyzer.analyze(text, language=self._language_of(text), entities=list(_KINDS))
        found: list[tuple[str, list[Offsets]]] = []
        for entity, kind in _KINDS.items():
            offsets = [(result.start, result.end) for result in results if result.entity_type == entity]
            if offsets:
                found.append((kind, without_overlaps(offsets)))
        return found

    def _language_of(self, text: str) -> str:
        han = len(_HAN.findall(text))
        language = "zh" if han > _HAN_SHARE * len(text) else "en"
        return language if language in self._languages else self._languages[0]


def depends_on(models: Mapping[str, str]) -> dict[str, str]:
    """Return what entities that are found depend on beside the texts: digests of models, versions of libraries.

    Args:
        models: language → installed spaCy model or directory.

    Raises:
        EnvironmentProblem: there is no such model.
    """
    digests = {language: digest_of_directory(_directory_of(language, model)) for language, model in models.items()}
    return digests | library_versions("presidio-analyzer", "spacy")


def _directory_of(language: str, model: str) -> Path:
    if model.isidentifier():  # a name: spaCy's models are packages
        package = importlib.util.find_spec(model)
        if package is not None and package.submodule_search_locations:
            return Path(package.submodule_search_locations[0])
    elif Path(model).is_dir():
        return Path(model)
    raise EnvironmentProblem(
        f"entity_models.{language} of the step personal is {model!r}, which is no installed spaCy model "
        "and no directory that one was saved to"
    )


def _analyzer(models: Mapping[str, str]) -> Any:
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpEngineProvider
    from presidio_analyzer.predefined_recognizers import SpacyRecognizer

    configuration = {
        "nlp_engine_name": "spacy",
        "models": [{"lang_code": language, "model_name": model} for language, model in models.items()],
    }
    languages = list(models)
    registry = RecognizerRegistry(
        recognizers=[SpacyRecognizer(supported_language=language) for language in languages],
        supported_languages=languages,
    )
    engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=languages)
