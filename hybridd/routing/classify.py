"""Which task is it? A small local guess for ``model: auto`` without a task, by words alone: it must cost nothing.

The guess is shown with the decision, so that a wrong one is seen and can be overruled with ``x-hybridd-task``.
"""

from __future__ import annotations

import re

_CODE = re.compile(
    r"```|\b(def|class|import|function|const|return|SELECT|public static|#include)\b\s*[\w({<*]"
    r"|\b(code|código|function|função|script|regex|refactor|refatore|bug|unit tests?|compile|python|javascript|"
    r"typescript|rust|java|golang|c\+\+|sql|bash|api endpoint|docstring|algorithm|algoritmo)\b",
    re.IGNORECASE,
)
_SENTIMENT = re.compile(
    r"\b(sentiment|sentimento|(positive|positivo|positiva) (or|ou) (negative|negativo|negativa))\b", re.IGNORECASE
)
_CLASSIFY = re.compile(
    r"\b(classify|classifique|categori[sz]e|categorize|label (this|the)|which (category|class)|qual (a )?categoria)\b",
    re.IGNORECASE,
)


def classify_task(text: str) -> str:
    """One of ``sentiment_analysis``, ``text_classification``, ``code_generation``, ``text_generation``.

    Only the first 4,000 characters are read.
    """
    head = text[:4000]
    if _SENTIMENT.search(head):
        return "sentiment_analysis"
    if _CLASSIFY.search(head):
        return "text_classification"
    if _CODE.search(head):
        return "code_generation"
    return "text_generation"
