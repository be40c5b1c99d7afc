"""The offline sentiment specialist: English and Brazilian Portuguese, trained in about a second from shipped data.

Marked text (`polarity.mark`) -> TF-IDF of words and word pairs, and of character 2- to 4-grams -> logistic regression.
scikit-learn, numpy and skops are imported where they are used: importing this module costs nothing.

`python -m hybridd.mlops.sentiment` prints how well it does on sentences it was not trained on.
"""

import hashlib
import importlib.metadata
import logging
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, TypedDict

from hybridd.mlops import model_file, polarity
from hybridd.mlops.model_file import ModelFileError

LANGUAGES: Final = ("en", "pt")
LABELS: Final = ("positive", "negative", "neutral")
DATASET: Final = Path(__file__).parent / "data" / "sentiment.tsv"
FOLDS: Final = 5
MAX_CHARACTERS: Final = 20_000
"""Only this much of a text is read: feeling shows early, and a megabyte of character n-grams would not stay cheap."""

# The whole of what the file of a sentiment model may hold.
ALLOWED_TYPES: Final = frozenset(
    {
        "builtins.dict",
        "builtins.list",  # how skops stores the key types of a dict
        "builtins.str",
        "numpy.ndarray",
        "sklearn.linear_model._logistic.LogisticRegression",
    }
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled sentence."""

    language: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The likeliest label, the probability of each of the three (they sum to 1), and the model that said so."""

    label: str
    probabilities: dict[str, float]
    version: str


class Report(TypedDict):
    """What `held_out_report` measures; `confusion[true][predicted]` counts sentences."""

    seed: int
    fold: int
    n_train: int
    n: int
    accuracy: float
    accuracy_by_language: dict[str, float]
    precision: dict[str, float]
    recall: dict[str, float]
    confusion: dict[str, dict[str, int]]
    train_seconds: float


def load_dataset(path: Path | None = None) -> list[Example]:
    """The labelled sentences of `path`, by default the shipped set.

    Raises ValueError, naming the file and the line, for a line that is not `language<TAB>label<TAB>text`.
    """
    path = path or DATASET
    examples: list[Example] = []
    for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            fields = raw.decode().split("\t")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8") from error
        if number == 1:
            if fields != ["language", "label", "text"]:
                raise ValueError(f"{path}, line 1: the header must be language, label, text, separated by tabs")
            continue
        if len(fields) != 3:
            raise ValueError(f"{path}, line {number}: {len(fields)} columns where 3 belong")
        language, label, text = fields
        if language not in LANGUAGES or label not in LABELS or not text.strip():
            raise ValueError(f"{path}, line {number}: unknown language or label, or an empty text")
        examples.append(Example(language, label, text))
    return examples


def dataset_hash(examples: Iterable[Example]) -> str:
    """SHA-256, in hexadecimal, of the examples in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.language}\t{example.label}\t{example.text}\n".encode())
    return digest.hexdigest()


@cache
def code_version() -> str:
    """A digest of the modules that decide what a model and its file are: nobody can forget to raise it."""
    sources = (Path(__file__), Path(polarity.__file__), Path(model_file.__file__))
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:8]


def model_version(examples: Iterable[Example]) -> str:
    """The identity of a model: its data, the scikit-learn that fits it, and this code."""
    sklearn_version = importlib.metadata.version("scikit-learn")
    return f"sentiment-{dataset_hash(examples)[:8]}-sk{sklearn_version}-{code_version()}"


def _vectorizers(words: list[str] | None = None, grams: list[str] | None = None) -> tuple[Any, Any]:
    """Word and character TF-IDF; with their terms given, ready to be handed the matching idf."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    common = {"lowercase": False, "sublinear_tf": True}
    return (
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\b\w+\b", vocabulary=words, **common),  # noqa: S106 - a regex
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), vocabulary=grams, **common),
    )


def train(examples: Sequence[Example], *, seed: int = 0) -> "SentimentModel":
    """Fit a model. `seed` goes to the solver, though the present one (lbfgs) draws nothing from it.

    Raises ValueError unless all three labels occur.
    """
    from scipy.sparse import hstack
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it has no stubs

    labels = [example.label for example in examples]
    if set(labels) != set(LABELS):
        raise ValueError(f"Training needs examples of exactly these labels: {', '.join(LABELS)}.")
    marked = [polarity.mark(example.text) for example in examples]
    words, grams = _vectorizers()
    features = hstack([words.fit_transform(marked), grams.fit_transform(marked)], format="csr")
    # Cross-validated accuracy is flat (0.914 to 0.916) for C from 2 to 20. One thread, because on matrices this small
    # a second one only gets in the way: 0.24 s against 0.55 to 0.79 s on two cores.
    with threadpool_limits(limits=1):
        classifier = LogisticRegression(C=5.0, max_iter=500, random_state=seed).fit(features, labels)
    return SentimentModel(words, grams, classifier, model_version(examples))


class SentimentModel:
    """A fitted classifier. Reading it from several threads is safe: nothing changes after construction."""

    def __init__(self, words: Any, grams: Any, classifier: Any, version: str) -> None:
        self._words = words
        self._grams = grams
        self._classifier = classifier
        self.version = version

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction a text, in order. A text without a single known word comes out neutral."""
        from scipy.sparse import hstack

        if isinstance(texts, str):
            raise TypeError("predict takes a sequence of texts, not one text")
        if not texts:
            return []
        marked = [polarity.mark(text[:MAX_CHARACTERS]) for text in texts]
        features = hstack([self._words.transform(marked), self._grams.transform(marked)], format="csr")
        names = [str(name) for name in self._classifier.classes_]
        predictions = []
        for row in self._classifier.predict_proba(features).tolist():
            by_name: dict[str, float] = dict(zip(names, row, strict=True))
            probabilities = {label: by_name[label] for label in LABELS}
            best = max(LABELS, key=probabilities.__getitem__)
            predictions.append(Prediction(best, probabilities, self.version))
        return predictions

    def save(self, path: Path) -> None:
        """Write the model atomically (see `model_file`).

        The vocabularies are stored as one string each, because skops writes 23,000 dict entries as 19 MB of JSON.
        """
        content = {
            "version": self.version,
            "words": "\n".join(self._words.get_feature_names_out()),
            "grams": "\n".join(self._grams.get_feature_names_out()),
            "words_idf": self._words.idf_,
            "grams_idf": self._grams.idf_,
            "classifier": self._classifier,
        }
        model_file.write(path, content)

    @classmethod
    def load(cls, path: Path) -> "SentimentModel":
        """Read a file that `save` wrote.

        Raises model_file.UntrustedTypeError when it holds a type outside `ALLOWED_TYPES`, ModelFileError when it is
        damaged or something else, OSError when it cannot be read.
        """
        content = model_file.read(path, ALLOWED_TYPES)
        try:
            words, grams = _vectorizers(content["words"].split("\n"), content["grams"].split("\n"))
            words.idf_, grams.idf_ = content["words_idf"], content["grams_idf"]
            model = cls(words, grams, content["classifier"], content["version"])
            model.predict(["a first text shows that the parts fit together"])
        except Exception as error:  # scikit-learn reports parts that do not fit in many ways
            raise ModelFileError(f"{path} does not hold a sentiment model: {error!r}") from error
        return model


def load_or_train(cache_dir: Path) -> SentimentModel:
    """The model of the shipped data: from the cache when it is there and sound, otherwise trained and cached.

    A damaged or foreign cache file is moved aside (`.corrupt`) and replaced. Where the cache cannot be written the
    model is still returned. Both are logged as warnings.
    """
    examples = load_dataset()
    version = model_version(examples)
    path = cache_dir / f"{version}.skops"
    try:
        model = SentimentModel.load(path)
        if model.version == version:
            return model
        _move_aside(path, f"it calls itself {model.version}")
    except FileNotFoundError:
        pass
    except ModelFileError as error:
        _move_aside(path, str(error))
    except OSError as error:
        log.warning("The cached sentiment model %s cannot be read (%s). Training a new one.", path, error)
    model = train(examples)
    try:
        model.save(path)
    except OSError as error:
        log.warning("The sentiment model cannot be cached as %s (%s). It will be trained again next time.", path, error)
    return model


def _move_aside(path: Path, reason: str) -> None:
    aside = path.with_name(path.name + ".corrupt")
    log.warning("The cached sentiment model %s is unusable: %s Moved to %s; training a new one.", path, reason, aside)
    try:
        os.replace(path, aside)
    except OSError as error:  # another process was first, or the folder is read-only: neither stops training
        log.warning("The unusable file %s stays where it is (%s).", path, error)


def held_out_split(examples: Sequence[Example], *, seed: int = 0, fold: int = 0) -> tuple[list[Example], list[Example]]:
    """Training examples and a held-out fifth, equally many from each language and label.

    The n-th sentences of the six cells belong to one topic and go to the same side, so no held-out sentence has its
    translation or its opposite among the training ones. The five folds of a seed share no held-out sentence.
    """
    groups: dict[int, list[Example]] = defaultdict(list)
    seen: Counter[tuple[str, str]] = Counter()
    for example in examples:
        cell = (example.language, example.label)
        groups[seen[cell]].append(example)
        seen[cell] += 1
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    held_out = set(order[fold::FOLDS])
    kept = [example for position in order if position not in held_out for example in groups[position]]
    return kept, [example for position in order if position in held_out for example in groups[position]]


def held_out_report(seed: int = 0, fold: int = 0) -> Report:
    """Train on four fifths of the shipped data and measure on the other."""
    kept, held_out = held_out_split(load_dataset(), seed=seed, fold=fold)
    start = time.perf_counter()
    model = train(kept, seed=seed)
    seconds = time.perf_counter() - start
    confusion = {true: dict.fromkeys(LABELS, 0) for true in LABELS}
    right: Counter[str] = Counter()
    for example, prediction in zip(held_out, model.predict([e.text for e in held_out]), strict=True):
        confusion[example.label][prediction.label] += 1
        right[example.language] += example.label == prediction.label
    of_language = Counter(example.language for example in held_out)
    predicted = {label: sum(confusion[true][label] for true in LABELS) for label in LABELS}
    return Report(
        seed=seed,
        fold=fold,
        n_train=len(kept),
        n=len(held_out),
        accuracy=right.total() / len(held_out),
        accuracy_by_language={language: right[language] / of_language[language] for language in LANGUAGES},
        precision={label: confusion[label][label] / max(1, predicted[label]) for label in LABELS},
        recall={label: confusion[label][label] / sum(confusion[label].values()) for label in LABELS},
        confusion=confusion,
        train_seconds=seconds,
    )


if __name__ == "__main__":
    from hybridd.mlops.sentiment_page import main

    sys.exit(main())
