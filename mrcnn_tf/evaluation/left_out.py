"""What an evaluation had to leave out, as lines under its tables."""

from rich.text import Text

SHOWN = 10


def left_out_lines(sentences):
    """The first of the sentences, and how many more there are, as rich texts."""
    lines = [Text(sentence) for sentence in sentences[:SHOWN]]
    if len(sentences) > SHOWN:
        lines.append(Text(f"... and {len(sentences) - SHOWN} more, all of them in the json."))
    return lines
