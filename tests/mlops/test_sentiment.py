"""The sentiment specialist: its data, its accuracy on unseen sentences, its files and its cache."""

import importlib.metadata
import itertools
import json
import logging
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression, Ridge

from hybridd.mlops import model_file, polarity, sentiment, sentiment_page
from hybridd.mlops.model_file import ModelFileError, UntrustedTypeError
from hybridd.mlops.sentiment import LABELS, LANGUAGES, Example, SentimentModel

ROOT = Path(__file__).parents[2]

# None of these is in the data; the labels were given before the model was asked.
UNSEEN = [
    ("positive", "Este produto é maravilhoso, superou tudo!"),
    ("positive", "O hotel é ótimo e a equipe foi muito simpática"),
    ("positive", "nao achei nada ruim, gostei bastante"),
    ("positive", "This laptop is excellent and I love the screen."),
    ("positive", "Not bad, not bad at all"),
    ("positive", "The mechanic was honest and really helpful"),
    ("negative", "Este produto é péssimo, não recomendo."),
    ("negative", "Não gostei do atendimento, muito demorado"),
    ("negative", "a bateria é ruim e o carregador quebrou"),
    ("negative", "The food was awful and the waiter was rude."),
    ("negative", "I am not happy with this phone"),
    ("negative", "what a waste of time, terrible film"),
    ("neutral", "A consulta é na quinta-feira às nove."),
    ("neutral", "Onde fica o ponto de ônibus?"),
    ("neutral", "O arquivo tem quatro colunas e vinte linhas."),
    ("neutral", "The library opens at ten on weekdays."),
    ("neutral", "Which port does the server listen on?"),
    ("neutral", "She lives in a flat near the river."),
]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return sentiment.load_dataset()


@pytest.fixture(scope="module")
def model(examples: list[Example]) -> SentimentModel:
    return sentiment.train(examples)


def words_of(text: str) -> frozenset[str]:
    return frozenset("".join(c if c.isalnum() else " " for c in polarity.fold(text)).split())


def test_the_data_are_balanced(examples):
    """Every language and label has the same number of sentences, and there are at least 168 of each."""
    cells = Counter((example.language, example.label) for example in examples)
    assert set(cells) == set(itertools.product(LANGUAGES, LABELS))
    assert len(set(cells.values())) == 1
    assert min(cells.values()) >= 168


def test_the_data_hold_no_sentence_twice(examples):
    """No two sentences share all their words, nor six words in ten, when accents, case and signs are ignored."""
    assert len({polarity.fold(example.text) for example in examples}) == len(examples)
    for language in LANGUAGES:
        texts = [(words_of(example.text), example.text) for example in examples if example.language == language]
        alike = [
            (one, other) for (a, one), (b, other) in itertools.combinations(texts, 2) if len(a & b) >= 0.6 * len(a | b)
        ]
        assert alike == []


def test_the_data_vary_in_length(examples):
    """There are sentences of two words and of thirty in both languages."""
    for language in LANGUAGES:
        lengths = {len(example.text.split()) for example in examples if example.language == language}
        assert min(lengths) <= 2
        assert max(lengths) >= 30


@pytest.mark.parametrize(
    "line", [b"en\tpositive", b"en\tgreat\tNice.", b"fr\tpositive\tBien.", b"en\tneutral\t ", b"en\tneutral\t\xff"]
)
def test_a_malformed_line_is_named(tmp_path, line):
    """A bad line raises ValueError with the file and the line number."""
    path = tmp_path / "bad.tsv"
    path.write_bytes(b"language\tlabel\ttext\nen\tpositive\tNice.\n" + line + b"\n")
    with pytest.raises(ValueError) as caught:
        sentiment.load_dataset(path)
    assert str(path) in str(caught.value)
    assert "line 3" in str(caught.value)


def test_the_hash_follows_text_label_and_order(examples):
    """Any change to a sentence, a label or the order changes the hash; the same data give the same."""
    first = examples[0]
    same = sentiment.dataset_hash(list(examples))
    assert sentiment.dataset_hash(examples) == same
    for changed in (
        [Example(first.language, first.label, first.text + "!"), *examples[1:]],
        [Example(first.language, "neutral", first.text), *examples[1:]],
        [*examples[1:], first],
    ):
        assert sentiment.dataset_hash(changed) != same


def test_the_split_is_stratified_and_clean(examples):
    """The five folds of a seed are disjoint, cover everything, are balanced, and keep a topic on one side."""
    positions = {}
    seen: Counter[tuple[str, str]] = Counter()
    for example in examples:
        positions[example] = seen[example.language, example.label]
        seen[example.language, example.label] += 1
    tests = []
    for fold in range(sentiment.FOLDS):
        kept, held_out = sentiment.held_out_split(examples, seed=3, fold=fold)
        assert sorted(map(repr, kept + held_out)) == sorted(map(repr, examples))
        assert len(set(Counter((e.language, e.label) for e in held_out).values())) == 1
        assert {positions[e] for e in kept}.isdisjoint({positions[e] for e in held_out})
        tests += held_out
    assert Counter(tests) == Counter(examples)


def test_accuracy_on_sentences_it_was_not_trained_on():
    """Nine in ten held-out sentences are labelled right, in both languages and for every label about as well."""
    report = sentiment.held_out_report()
    assert report["n"] == 252
    assert report["accuracy"] >= 0.88
    assert min(report["accuracy_by_language"].values()) >= 0.87
    assert min(report["recall"].values()) >= 0.82
    assert min(report["precision"].values()) >= 0.82
    correct = sum(report["confusion"][label][label] for label in LABELS)
    assert report["accuracy"] == pytest.approx(correct / report["n"])


def test_the_accuracy_comes_from_the_labels(examples):
    """The same training on shuffled labels is no better than guessing."""
    kept, held_out = sentiment.held_out_split(examples)
    labels = [example.label for example in kept]
    random.Random(1).shuffle(labels)
    shuffled = [Example(e.language, label, e.text) for e, label in zip(kept, labels, strict=True)]
    predictions = sentiment.train(shuffled).predict([example.text for example in held_out])
    right = sum(p.label == e.label for p, e in zip(predictions, held_out, strict=True))
    assert right / len(held_out) < 0.5


@pytest.mark.parametrize(("label", "text"), UNSEEN)
def test_sentences_that_are_not_in_the_data(model, examples, label, text):
    """Plain sentences outside the data get the label that a reader gives them."""
    assert polarity.fold(text) not in {polarity.fold(example.text) for example in examples}
    assert model.predict([text])[0].label == label


def test_the_wellknown_sentence(model):
    """The sentence people try first is positive, with or without its accents."""
    predictions = model.predict(["Este produto é incrível!", "este produto e incrivel"])
    assert [prediction.label for prediction in predictions] == ["positive", "positive"]


def test_probabilities(model):
    """Probabilities are of the three labels, sum to one, agree with the label, and do not depend on the company."""
    texts = ["I love it", "", "é", "Odiei.", "日本語", "x " * 50_000, "The shop is on Mill Street."]
    predictions = model.predict(texts)
    for text, prediction in zip(texts, predictions, strict=True):
        assert set(prediction.probabilities) == set(LABELS)
        assert sum(prediction.probabilities.values()) == pytest.approx(1.0, abs=1e-9)
        assert max(prediction.probabilities, key=prediction.probabilities.__getitem__) == prediction.label
        assert prediction.version == model.version
        assert model.predict([text]) == [prediction]


def test_predict_takes_a_list(model):
    """No texts give no predictions; a bare string is refused instead of being read letter by letter."""
    assert model.predict([]) == []
    with pytest.raises(TypeError):
        model.predict("I love it")


def test_only_the_beginning_of_a_long_text_is_read(model):
    """What stands after MAX_CHARACTERS changes nothing."""
    start = "The table is brown. ".ljust(sentiment.MAX_CHARACTERS, "a")
    assert model.predict([start]) == model.predict([start + " I hate it, terrible, awful!"])


def test_negation_turns_a_polarity_word_round():
    """A polarity word within three words of a negator counts for the other side, up to the next clause."""
    assert "lexneg" in polarity.mark("It is not a good book").split()
    assert "lexpos" in polarity.mark("Não é ruim").split()
    assert "lexpos" in polarity.mark("It did not rain, good").split()
    assert "lexpos" in polarity.mark("fiquei bem no bom hotel de Natal").split(), 'Portuguese "no" is "in the"'
    assert "lexneg" in polarity.mark("there is no good reason").split()


def test_no_word_is_on_both_sides():
    """No listed word, nor a word a stem covers, is listed as praise and as blame."""
    praise = (polarity.POSITIVE_ENGLISH + polarity.POSITIVE_PORTUGUESE).split()
    blame = (polarity.NEGATIVE_ENGLISH + polarity.NEGATIVE_PORTUGUESE).split()
    clashes = [
        (one, other)
        for one, other in itertools.product(praise, blame)
        if one.rstrip("*") == other.rstrip("*")
        or (one.endswith("*") and other.startswith(one[:-1]))
        or (other.endswith("*") and one.startswith(other[:-1]))
    ]
    assert clashes == []


def test_training_needs_all_three_labels(examples):
    """Data without one of the labels are refused with a sentence, not learnt."""
    with pytest.raises(ValueError, match="positive, negative, neutral"):
        sentiment.train([example for example in examples if example.label != "neutral"])


def test_save_and_load_keep_every_probability(model, examples, tmp_path):
    """A model read back from its file gives exactly the same predictions and leaves no other file behind."""
    path = tmp_path / "model.skops"
    model.save(path)
    texts = [example.text for example in examples[::7]] + ["never seen before"]
    assert SentimentModel.load(path).predict(texts) == model.predict(texts)
    assert os.listdir(tmp_path) == ["model.skops"]


class Innocent:
    """A class that leaves a trace when anything constructs it."""

    constructed = 0

    def __init__(self) -> None:
        self.payload = 1

    def __setstate__(self, state: dict[str, int]) -> None:
        type(self).constructed += 1


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (Innocent(), "Innocent"),
        (Ridge(), "Ridge"),  # trusted by skops itself
        (os.getcwd, "getcwd"),
        (numpy.random.default_rng(0), "Generator"),
        (numpy.float64, "float64"),
    ],
)
def test_a_file_with_a_foreign_type_is_refused(tmp_path, content, name):
    """A file that holds anything but the listed types is refused by name, and nothing in it is constructed."""
    path = tmp_path / "hostile.skops"
    model_file.write(
        path, {"version": "1", "words": "a", "grams": "a", "classifier": LogisticRegression(), "x": content}
    )
    Innocent.constructed = 0
    with pytest.raises(UntrustedTypeError, match=name) as caught:
        SentimentModel.load(path)
    assert str(path) in str(caught.value)
    assert Innocent.constructed == 0


def test_a_file_cannot_name_what_to_trust(tmp_path):
    """The list is in the code and names estimators one by one; every type in a real file is on it, and no other."""
    assert {name for name in sentiment.ALLOWED_TYPES if name.startswith("sklearn.")} == {
        "sklearn.linear_model._logistic.LogisticRegression"
    }
    path = tmp_path / "own.skops"
    model_file.write(path, {"trusted": f"{__name__}.Innocent", "x": Innocent()})
    with pytest.raises(UntrustedTypeError):
        SentimentModel.load(path)


def test_a_file_that_would_unpack_too_large_is_refused(model, tmp_path, monkeypatch):
    """A file is measured before it is unpacked."""
    path = tmp_path / "model.skops"
    model.save(path)
    monkeypatch.setattr(model_file, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ModelFileError, match="unpack to more than 1000 bytes"):
        SentimentModel.load(path)


def test_parts_that_do_not_fit_are_refused(model, tmp_path):
    """A file of allowed types that is no sentiment model raises ModelFileError, at load and not at the first text."""
    path = tmp_path / "other.skops"
    for content in ({"version": "1"}, {"version": "1", "words": "a", "grams": "a"}, "text"):
        model_file.write(path, content)
        with pytest.raises(ModelFileError, match="does not hold a sentiment model"):
            SentimentModel.load(path)
    model.save(path)
    content = skops.io.load(path)
    # One word more, with its idf: only the classifier, asked for a prediction, can notice.
    longer = {"words": content["words"] + "\nunheardof", "words_idf": numpy.append(content["words_idf"], 1.0)}
    model_file.write(path, {**content, **longer})
    with pytest.raises(ModelFileError, match="does not hold a sentiment model"):
        SentimentModel.load(path)


def test_the_second_start_reads_the_cache(tmp_path, monkeypatch):
    """A cached model is loaded and not trained again, and its file name holds data, scikit-learn and code."""
    model = sentiment.load_or_train(tmp_path / "new" / "folder")
    monkeypatch.setattr(sentiment, "train", lambda *_: pytest.fail("trained although the cache is sound"))
    again = sentiment.load_or_train(tmp_path / "new" / "folder")
    assert again.version == model.version
    [path] = (tmp_path / "new" / "folder").iterdir()
    assert sentiment.dataset_hash(sentiment.load_dataset())[:8] in path.name
    assert sentiment.code_version() in path.name
    assert f"sk{importlib.metadata.version('scikit-learn')}" in path.name


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "foreign", "renamed"])
def test_a_corrupt_cache_is_moved_aside_and_trained_again(model, tmp_path, caplog, damage):
    """Whatever is wrong with the cached file, the answer is a sound model, a warning, and the bad file kept aside."""
    path = tmp_path / f"{model.version}.skops"
    model.save(path)
    sound = path.read_bytes()
    if damage == "foreign":
        model_file.write(path, {"x": Innocent()})
    elif damage == "renamed":
        SentimentModel(model._words, model._grams, model._classifier, "another version").save(path)
    else:
        path.write_bytes({"truncated": sound[: len(sound) // 2], "garbage": b"\0" * 5000, "empty": b""}[damage])
    bad = path.read_bytes()
    with caplog.at_level(logging.WARNING, logger="hybridd.mlops.sentiment"):
        trained = sentiment.load_or_train(tmp_path)
    assert trained.predict(["I love it"])[0].label == "positive"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "training a new one" in caplog.text
    assert (tmp_path / f"{path.name}.corrupt").read_bytes() == bad
    assert SentimentModel.load(path).version == model.version


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, caplog):
    """Without a place for the cache the model is trained all the same, and the log says that it was not kept."""
    (tmp_path / "file").write_text("in the way")
    model = sentiment.load_or_train(tmp_path / "file")
    assert model.predict(["Odiei, péssimo"])[0].label == "negative"
    assert "cannot be cached" in caplog.text


def test_an_interrupted_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    """If the last step of writing fails, the old file is untouched and no temporary file stays."""
    path = tmp_path / "model.skops"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.skops"]


def test_a_second_writer_in_the_middle_does_no_harm(model, tmp_path, monkeypatch):
    """A writer that comes while another is about to put its file in place succeeds too, and neither leaves a trace."""
    path = tmp_path / "model.skops"
    replace = os.replace

    def let_another_in(source: str, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        model.save(path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", let_another_in)
    model.save(path)
    assert os.listdir(tmp_path) == ["model.skops"]
    assert SentimentModel.load(path).version == model.version


def test_two_processes_may_start_at_once(tmp_path):
    """Two cold starts on one cache folder both succeed and leave one sound file."""
    code = (
        "import sys, pathlib; from hybridd.mlops.sentiment import load_or_train\n"
        "print(load_or_train(pathlib.Path(sys.argv[1])).predict(['Adorei'])[0].label)"
    )
    starts = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in starts] == ["positive", "positive"]
    [path] = tmp_path.iterdir()
    assert SentimentModel.load(path).predict(["Adorei"])[0].label == "positive"


def test_importing_the_module_is_cheap():
    """Importing it loads none of numpy, scipy, scikit-learn and skops; only training or loading does."""
    code = (
        "import sys, hybridd.mlops.sentiment; print(sorted({'numpy', 'scipy', 'sklearn', 'skops'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_is_up_to_date():
    """docs/sentiment.md is what a fresh measurement writes."""
    fresh = sentiment_page.page()
    assert (ROOT / "docs" / "sentiment.md").read_text(encoding="utf-8") == fresh


def test_the_command_line(tmp_path, capsys, monkeypatch):
    """The command prints Markdown, or JSON with the same figures, and `--write` writes the page."""
    assert sentiment_page.main([]) == 0
    printed = capsys.readouterr().out
    assert sentiment_page.main(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert f"Accuracy {100 * report['accuracy']:.1f} % of {report['n']} sentences" in printed
    assert f"| neutral | {' | '.join(str(n) for n in report['confusion']['neutral'].values())} |" in printed
    monkeypatch.setattr(sentiment_page, "page", lambda: "the page\n")
    assert sentiment_page.main(["--write", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text() == "the page\n"
    assert capsys.readouterr().out == ""
