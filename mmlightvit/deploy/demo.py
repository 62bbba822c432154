# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""Models to try out in a browser: a picture or the camera in; what was found, as a picture and a table, out.

Gradio makes the page. It is told to send no statistics and to open no tunnel; its page loads nothing from elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from mmlightvit.errors import UserError, listed
from mmlightvit.inference.model import Model
from mmlightvit.pictures.result import Result
from mmlightvit.tasks import TASKS

MAX_UPLOAD = '20mb'


def gradio() -> Any:
    """The package, silent.

    Raises:
        UserError: It is not installed.
    """
    os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # both are read while it is imported
    os.environ.setdefault('HF_HUB_DISABLE_TELEMETRY', '1')
    try:
        import gradio
    except ModuleNotFoundError as error:
        raise UserError(f'mmlightvit demo needs {error.name}: pip install "mmlightvit[demo]"') from None
    return gradio


def demo(models: Mapping[str, Model], explain: Callable[[Model, Result], Any] | None = None) -> Any:
    """The page as a ``gradio.Blocks``; its ``launch`` starts it.

    Args:
        models: By the names among which the user chooses.
        explain: Makes a picture of a torch model's attention.
    """
    gr = gradio()
    names = list(models)
    first = models[names[0]]

    def look(name: str, path: str | None, own: bool, threshold: float, attention: bool) -> tuple[Any, ...]:
        if path is None:
            return None, None, None
        model = models[name]
        try:
            found = model.predict(path, score_thr=None if own else threshold)
            sheet = explain(model, found) if explain and attention and options(model)[1] else None
            return found.draw(legible=True), table(found), sheet
        except UserError as error:  # a picture that cannot be read, for example
            raise gr.Error(str(error)) from None

    def options(model: Model) -> tuple[bool, bool]:
        """Whether it has thresholds, and whether its attention can be looked at."""
        return TASKS[model.task].has_objects, explain is not None and hasattr(model, 'module')

    def turn_to(name: str) -> list[Any]:
        model = models[name]
        return [gr.update(value=describe(model)), *(gr.update(visible=is_on) for is_on in options(model))]

    has_thresholds, has_attention = options(first)
    buttons = ['download', 'fullscreen']  # there is one more by default, which sends the picture to a hub
    with gr.Blocks(title='mmlightvit', analytics_enabled=False) as page:
        chooser = gr.Dropdown(names, value=names[0], label='Model', visible=len(names) > 1)
        about = gr.Markdown(describe(first))
        with gr.Row():
            with gr.Column():
                picture = gr.Image(sources=['upload', 'webcam', 'clipboard'], buttons=[], label='Picture')
                # The file as it is, to be read as everywhere else: EXIF, alpha, 16 bits, and what is wrong with it.
                picture.preprocess = lambda payload: payload and payload.path
                with gr.Group(visible=has_thresholds) as thresholds:
                    own = gr.Checkbox(True, label="The model's own thresholds, class by class")
                    threshold = gr.Slider(0, 1, 0.3, step=0.01, label='One threshold for all classes, instead')
                attention = gr.Checkbox(False, label='What the global tokens look at', visible=has_attention)
            with gr.Column():
                drawn = gr.Image(label='Found', interactive=False, format='png', buttons=buttons)
                rows = gr.Dataframe(label='Found, as numbers', interactive=False, wrap=True)
        explained = gr.Image(label='Attention', interactive=False, format='jpeg', buttons=buttons)
        given, out = [chooser, picture, own, threshold, attention], [drawn, rows, explained]
        for changed in (picture.change, own.change, threshold.release, attention.change):
            changed(look, given, out, api_name=False)
        chooser.change(turn_to, chooser, [about, thresholds, attention], api_name=False).then(
            look, given, out, api_name=False
        )
    return page


def describe(model: Model) -> str:
    """A line about a model, Markdown."""
    return f'## {model.info.name}\n{model.task}: {listed(model.classes, 20)}'


def table(result: Result) -> dict[str, list[Any]]:
    """What was found, as Gradio's table takes it."""
    if result.probs is not None:
        return {
            'headers': ['class', 'probability'],
            'data': [[name, round(score, 3)] for _, name, score in result.top(5)],
        }
    if result.label_map is not None:
        return {
            'headers': ['class', 'share, %'],
            'data': [[name, round(100 * share, 1)] for name, _, share in result.shares()],
        }
    return {
        'headers': ['class', 'score', 'x1', 'y1', 'x2', 'y2'],
        'data': [
            [result.classes[label], round(score, 3), *(round(float(value), 1) for value in box)]
            for label, score, box in result.objects()
        ],
    }


def serve(page: Any, port: int) -> None:
    """Serve it on this machine's loopback address until the user ends it.

    Raises:
        UserError: The port is taken.
    """
    try:
        _, address, _ = page.launch(
            server_name='127.0.0.1',
            server_port=port,
            share=False,
            ssr_mode=False,
            quiet=True,
            show_error=True,
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(f'port {port} cannot be used: {error}') from None
    print(f'{address} (Ctrl-C ends it)', flush=True)
    page.block_thread()
