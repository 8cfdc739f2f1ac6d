"""What does TRL's trainer do before and after a step? It shows one line of progress, and ends where its run ended."""

from tqdm import tqdm
from transformers import TrainerCallback, TrainerState, TrainingArguments


class Progress(TrainerCallback):
    """A one-line text progress bar with the loss, on stderr; looks the same in a terminal and in a notebook."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        look = {"unit": "step", "ncols": 78, "mininterval": 1.0, "disable": not state.is_world_process_zero}
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, **look)

    def on_step_end(self, *_: object, **__: object) -> None:
        self.bar.update()

    def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
        if "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", refresh=False)

    def on_train_end(self, *_: object, **__: object) -> None:
        self.bar.close()


class Finished(Exception):
    """The checkpoint that a run goes on from is that of its last step."""


class StopsWhereItEnded(TrainerCallback):
    """Ends a run without a step left; transformers asks only after a step, and would make one more."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: object, **__: object) -> None:
        if state.global_step >= state.max_steps:
            raise Finished
