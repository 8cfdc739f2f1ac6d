"""What did the bench and the profile find, on the page? Tables of the committed records, for README.md beside this.

python -m tests.bench.report    # after new records were put into tests/bench/records/
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from course_utils.course import marks
from tests.bench import profile

HERE = Path(__file__).parent
BENCH_HEAD = ["dtype", "method", "variant", "tokens/s", "supervised/s", "peak GB", "x stock TRL", "x plain loop"]
GENERATION_HEAD = ["dtype", "method", "answers", "plain, tokens/s", "ours, tokens/s", "times", "same answers"]
GENERATION_HEAD += ["largest gap, nats"]
PEAKS_HEAD = ["method", "sequences x tokens", "checkpointing", "planned GB"]
PEAKS_HEAD += ["given back, GB", "error", "kept, GB", "error"]


def record(name: str) -> Any:
    """One of the committed records."""
    return json.loads((HERE / "records" / f"{name}.json").read_text(encoding="utf-8"))


def bench_rows(rows: pd.DataFrame) -> list[list[str]]:
    """A line for each variant; the last two columns are its speed divided by that of the variant they name."""
    lines = []
    for (dtype, method), kind in rows.groupby(["dtype", "method"], sort=False):
        speeds = kind.set_index("variant").tokens_per_second
        for row in kind.itertuples():
            ratios = (f"{row.tokens_per_second / speeds[base]:.2f}" for base in ("stock_trl", "plain_peft"))
            numbers = f"{row.tokens_per_second:.0f}", f"{row.supervised_tokens_per_second:.0f}"
            lines.append([dtype, method, row.variant, *numbers, f"{row.peak_bytes / 1e9:.1f}", *ratios])
    return lines


def share_rows(found: list[dict[str, Any]]) -> list[list[str]]:
    """A line for each part of a step, with its share of the time in each format."""
    return [[group, *(f"{100 * each['shares'][group]:.0f} %" for each in found)] for group in found[0]["shares"]]


def cost_rows(found: list[dict[str, Any]], axis: str) -> list[list[str]]:
    """A line for each length or batch size: seconds relative to the smallest, and attention's share of a length."""
    lines = []
    for index, (size, *_) in enumerate(found[0][axis]):
        line = [f"{size}"]
        for each in found:
            line.append(f"{each[axis][index][1] / each[axis][0][1]:.1f}")
            line += [f"{100 * share:.0f} %" for share in each[axis][index][2:]]
        lines.append(line)
    return lines


def exponents(found: list[dict[str, Any]], axis: str) -> str:
    """How time grows at the two largest sizes."""
    grown = []
    for each in found:
        sizes, times = tuple(row[0] for row in each[axis]), [row[1] for row in each[axis]]
        grown.append(f"{each['precision']} {profile.exponent(sizes, times):.2f}")
    return "Exponent between the two largest: " + ", ".join(grown) + "."


def table(head: list[str], lines: list[list[str]]) -> str:
    """A table in markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)) + "\n"


def speed_part() -> str:
    """The bench, and the machine that it was run on."""
    rows = pd.DataFrame(record("bench"))
    return f"{table(BENCH_HEAD, bench_rows(rows))}\n{rows.machine[0]}\n"


def generation_part() -> str:
    """Answers per second in both ways."""
    return table(GENERATION_HEAD, [generation_row(row) for row in record("generation")])


def generation_row(row: dict[str, Any]) -> list[str]:
    """Speeds, their ratio, and how near a tie is where an answer differs (no number where all are the same)."""
    plain, ours = row["plain_tokens_per_second"], row["ours_tokens_per_second"]
    gap = "" if row["same"] == row["of"] else f"{row['largest_gap']:.2f}"
    speeds = f"{plain:.0f}", f"{ours:.0f}", f"{ours / plain:.2f}"
    return [row["dtype"], row["method"], row["answers"], *speeds, f"{row['same']} of {row['of']}", gap]


def profile_part() -> str:
    """Where a step's time goes, and how it grows."""
    found = [record("profile_fp32"), record("profile_bf16")]
    names = [each["precision"] for each in found]
    both = [column for name in names for column in (name, f"{name}: attention's share")]
    parts = [
        table(["part of a step of 8 x 124 tokens", *names], share_rows(found)),
        table(["length, batches of 4", *both], cost_rows(found, "lengths")),
        exponents(found, "lengths") + "\n",
        table(["batch size, 128 tokens each", *names], cost_rows(found, "batch_sizes")),
        exponents(found, "batch_sizes") + "\n",
        table(
            ["the whole step", *names],
            [
                ["share of its matrices' own speed", *(f"{100 * share_of_peak(each):.0f} %" for each in found)],
                ["time without the memory kept", *(f"{gain_of_memory(each):.2f} times" for each in found)],
            ],
        ),
    ]
    return "\n".join(parts)


def share_of_peak(found: dict[str, Any]) -> float:
    """Arithmetic of a step over its time, as a share of the speed of its matrix shapes, each alone."""
    return found["step_flops"] / found["step_seconds"] / found["peak_flops"]


def gain_of_memory(found: dict[str, Any]) -> float:
    """Time of a step that gives its memory back to the system, over that of one that keeps it."""
    return found["step_seconds_in_a_notebook"] / found["step_seconds"]


def peaks_part() -> str:
    """Plans beside the measured peaks of steps, and the machine; errors are those of the plan."""
    rows = pd.read_csv(HERE / "peaks.csv")
    kept, back = (rows[rows["given_back"] == given_back] for given_back in (False, True))
    lines = []
    for one, other in zip(back.itertuples(), kept.itertuples(), strict=True):
        step = f"{one.micro_batch} x {one.length}", "yes" if one.checkpointing else "no"
        numbers = [f"{one.planned_bytes / 1e9:.2f}"]
        for row in (one, other):
            numbers += [f"{row.measured_bytes / 1e9:.2f}", f"{row.error_percent:+.1f} %"]
        lines.append([one.method, *step, *numbers])
    errors = [
        f"{name}: median {each.median():.1f} %, worst {each.max():.1f} %"
        for name, each in (("Given back", back["error_percent"].abs()), ("kept", kept["error_percent"].abs()))
    ]
    return f"{table(PEAKS_HEAD, lines)}\n{'; '.join(errors)}.\n\n{rows['machine'][0]}\n"


PARTS = {"speed": speed_part, "generation": generation_part, "profile": profile_part, "peaks": peaks_part}

if __name__ == "__main__":
    for mark, part in PARTS.items():
        marks.put_between(HERE / "README.md", mark, part())
