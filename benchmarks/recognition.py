"""How many unlabelled renders of the 53 animals a reader matches to their names.

    python -m tdpo_pipeline.menagerie.render sheet.png --unlabelled --seed 77
    python benchmarks/recognition.py --answers answers.txt

The reader gets the sheet and the list of names, and writes ``number name`` on a line
for each picture. The committed answers are one reader's, who had not seen the renderer
or the animals before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import ROOT, output_argument, write
from scipy.stats import binomtest

from tdpo_pipeline.menagerie.contact_sheet import shuffled_animals

ANSWERS = ROOT / "benchmarks" / "results" / "recognition_answers.txt"


def main() -> None:
    """Compare the answers with the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=Path, default=ANSWERS)
    parser.add_argument("--seed", type=int, default=77)
    output_argument(parser, "recognition.json")
    options = parser.parse_args()
    lines = options.answers.read_text().splitlines()
    answers = dict(line.split(maxsplit=1) for line in lines if line.strip())
    scenes, numbers = shuffled_animals(options.seed)
    wrong = {
        scene.subject: answers.get(number)
        for scene, number in zip(scenes, numbers, strict=True)
        if answers.get(number) != scene.subject
    }
    right = len(scenes) - len(wrong)
    interval = binomtest(right, len(scenes)).proportion_ci(method="wilson")
    write(
        options.output,
        {
            "readers": 1,
            "pictures": len(scenes),
            "right": right,
            "interval_95": [round(interval.low, 3), round(interval.high, 3)],
            "wrong": wrong,
        },
    )


if __name__ == "__main__":
    main()
