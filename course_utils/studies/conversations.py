"""What do the studies of conversations learn from, and what are they measured on?"""

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from course_utils import chat, datafiles
from course_utils.chat import Example
from course_utils.training import LORA, Recipe

CONVERSATIONS = Recipe(
    adapter=LORA, data="conversations", max_length=320, batch_order="group_by_length", steps=60, lr=1e-4
)


def encoded(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> dict[str, list[Example]]:
    """The best thread of each tree, by split, with the recipe's labels; threads that are too long are left out."""
    options = {"max_length": recipe.max_length, "train_on": recipe.train_on}
    return {
        split: chat.encode_all(
            map(chat.top_thread, datafiles.load_conversations(split=split)), tokenizer, recipe.template, **options
        )
        for split in datafiles.SPLITS
    }
