"""`python -m appliance.training`: make the shipped model from nothing but a seed.

Writes tokenizer, checkpoint, `NAME.gguf` and its pin `NAME.json` into a folder; a run that was cut off goes on where its
checkpoint stopped. `appliance model bench FOLDER/NAME.json` examines the result.
"""

from __future__ import annotations

import argparse
from collections import deque
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from appliance.core.pin import Launch, Manifest, Runtime, pin_file
from appliance.models.gguf_file import LICENCE
from appliance.reading.dialogues import draw_dialogue
from appliance.training.batches import STAGES
from appliance.training.export import write_gguf
from appliance.training.network import Network, Shape
from appliance.training.tokenizer import CHAT_TEMPLATE, END, Tokenizer, train_tokenizer
from appliance.training.train import Plan, train

NAME = "tiny-reader"
VERSION = "1.0"
_TOKENIZER_DIALOGUES = 6000
_SMOOTHED = 50  # steps


def main() -> None:
    """Parse the command line, train, export."""
    parser = argparse.ArgumentParser(prog="python -m appliance.training", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="for all that is written")
    parser.add_argument("--seed", type=int, default=Plan.seed, help="everything follows from it")
    parser.add_argument("--steps", type=int, default=Plan.steps, help=f"default {Plan.steps}")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    shape, plan = Shape(), Plan(seed=args.seed, steps=args.steps)
    tokenizer = make_tokenizer(args.out / "tokenizer.json", shape.vocabulary, args.seed)
    with Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}, {task.fields[speed]:.0f} tokens/s"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("training", total=plan.steps, loss=0.0, speed=0.0)
        recent: deque[tuple[float, float]] = deque(maxlen=_SMOOTHED)

        def report(step: int, loss: float, speed: float) -> None:
            recent.append((loss, speed))
            means = [sum(column) / len(recent) for column in zip(*recent, strict=True)]
            bar.update(task, completed=step, loss=means[0], speed=means[1])

        network = train(tokenizer, shape, plan, args.out, report)
    console.print(f"written: {export(network, tokenizer, args.out)}")


def make_tokenizer(path: Path, size: int, seed: int) -> Tokenizer:
    """Train the tokenizer on dialogues as they are at the end of the training, or read it back."""
    if not path.exists():
        random = Random(f"tokenizer {seed}")
        dialogues = (draw_dialogue(random, STAGES[2].scale) for _ in range(_TOKENIZER_DIALOGUES))
        train_tokenizer((message["content"] for messages in dialogues for message in messages), size).save(
            path
        )
    return Tokenizer.load(path)


def export(network: Network, tokenizer: Tokenizer, folder: Path) -> Path:
    """Write weights and pin; return the pin's path."""
    weights, pin = folder / f"{NAME}.gguf", folder / f"{NAME}.json"
    tensors = {name: tensor.float().numpy() for name, tensor in network.state_dict().items()}
    write_gguf(weights, NAME, tokenizer, network.shape, tensors)
    manifest = Manifest(
        name=NAME,
        version=VERSION,
        files=(pin_file(weights),),
        chat_template=CHAT_TEMPLATE,
        stop=(END,),
        launch=Launch(context_tokens=network.shape.context, max_sessions=8, batch_tokens=512),
        runtime=Runtime(llama_cpp_python="0.3.36"),
        licence=LICENCE,
        source="trained on generated text by appliance.training",
    )
    pin.write_bytes(manifest.canonical_bytes())
    return pin


if __name__ == "__main__":
    main()
