"""What in the outputs of a notebook is chance, or stray? It is taken out."""

import re

import nbformat

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Take chance out of the outputs: one stream each, progress bars as their last line, no stray metadata."""
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        streams: dict[str, nbformat.NotebookNode] = {}
        outputs = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name in streams:
                streams[output.name].text += output.text
                continue
            if output.output_type == "stream":
                streams[output.name] = output
            outputs.append(output)
        for stream in streams.values():
            stream.text = re.sub(r"^.*\r(?=[^\n])", "", stream.text, flags=re.MULTILINE).lstrip("\r\n")
        cell.outputs = outputs
