"""How do I see a conversation?"""

import html

from IPython.display import HTML

from course_utils.chat import Turn, normalized


def as_html(thread: list[Turn]) -> HTML:
    """A conversation as speech bubbles, for a notebook; other roles than user and assistant stand in the middle."""
    look = "padding:.4em .8em;border-radius:.8em;margin:.3em;max-width:36em;width:fit-content;color:#111;"
    sides = {"user": "background:#d9ecf7;margin-left:auto", "assistant": "background:#eee"}
    bubbles = [
        f'<div style="{look}white-space:pre-wrap;{sides.get(turn["role"], "background:#fbf3d5;margin:.3em auto")}">'
        f"<b>{html.escape(turn['role'])}</b><br>{html.escape(turn['content'])}</div>"
        for turn in normalized(thread)
    ]
    return HTML("".join(bubbles))
