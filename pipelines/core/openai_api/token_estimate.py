"""How many tokens a text is likely to be, without the model's vocabulary."""

import string

LETTERS = f"{string.ascii_letters} ".encode()
LETTERS_A_TOKEN = 3  # English prose has 4 to 5 in the vocabularies of today's models


def likely_tokens(text: str) -> int:
    """A careful guess: letters and spaces by threes, every other ASCII character one, every byte beyond ASCII one.

    A function of the text alone, since it says where a long history is divided.
    """
    raw = text.encode("utf-8", "replace")
    others = len(raw.translate(None, LETTERS))
    return -(-(len(raw) - others) // LETTERS_A_TOKEN) + others
