# Copyright (c) The mmlightvit authors. SPDX-License-Identifier: Apache-2.0
"""What the import does with any format: where it writes, what it says of it, and that it can read itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from imports import HEIGHT, WIDTH, corners, imported, write_pictures

from mmlightvit.cli import main
from mmlightvit.data.folder import DatasetFolder
from mmlightvit.errors import UserError


def labelled(root: Path, rows: dict[str, str], start: int = 0) -> Path:
    """YOLO labels of two classes, by the name of the picture."""
    write_pictures(root / 'images', [f'{name}.jpg' for name in rows], start)
    (root / 'labels').mkdir(exist_ok=True)
    for name, text in rows.items():
        (root / 'labels' / f'{name}.txt').write_text(text)
    (root / 'data.yaml').write_text('names: [cat, dog]\n')
    return root


ROWS = {f'{number:02d}': f'{number % 2} 0.5 0.5 0.25 0.25\n' for number in range(10)}


def state(root: Path) -> dict[str, tuple[float, str]]:
    return {
        str(path): (path.stat().st_mtime, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def test_the_source_stays_and_the_folder_says_what_it_is(tmp_path: Path) -> None:
    source = labelled(tmp_path / 's', ROWS)
    before = state(source)
    done = imported(source, tmp_path / 'deep' / 'out', seed=3)
    assert state(source) == before
    folder = DatasetFolder.load(tmp_path / 'deep' / 'out')
    assert (folder.task, folder.classes, folder.images) == ('detection', ('cat', 'dog'), source)
    info = folder.info
    assert info['source'] == {'path': str(source), 'format': 'yolo'} and info['seed'] == 3
    assert info['lost'] == {'count': 0, 'reasons': {}}
    assert info['splits']['train'] == {'file': 'annotations/train.json', 'pictures': 8, 'objects': 8}
    files = {str(path.relative_to(folder.path)) for path in folder.path.rglob('*') if path.is_file()}
    assert files - {'dataset.json'} == set(info['files']) == {
        'annotations/train.json', 'annotations/val.json', 'config.py', 'lost.csv'
    }  # fmt: skip
    for name, digest in info['files'].items():
        assert hashlib.sha256((folder.path / name).read_bytes()).hexdigest() == digest
    again = imported(source, tmp_path / 'again', seed=3)
    for split in ('train', 'val'):
        assert again.folder.file_of(split).read_bytes() == done.folder.file_of(split).read_bytes()


def test_an_existing_folder_is_not_written_into(tmp_path: Path) -> None:
    source = labelled(tmp_path / 's', ROWS)
    imported(source, tmp_path / 'out')
    with pytest.raises(UserError, match=r'exists and is not empty.*--overwrite'):
        imported(source, tmp_path / 'out')
    assert imported(source, tmp_path / 'out', overwrite=True, split='1').names('train') == [f'{n}.jpg' for n in ROWS]
    with pytest.raises(UserError, match='would replace the source'):
        imported(source, tmp_path, overwrite=True)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('x')
    with pytest.raises(UserError, match='is no prepared folder, so --overwrite does not remove it'):
        imported(source, tmp_path / 'mine', overwrite=True)
    (tmp_path / 'empty').mkdir()
    imported(source, tmp_path / 'empty')


def test_a_copy_needs_the_source_no_more(tmp_path: Path) -> None:
    source = labelled(tmp_path / 's', ROWS)
    done = imported(source, tmp_path / 'out', copy=True)
    assert done.folder.images == tmp_path / 'out' / 'images' and done.folder.info['images'] == 'images'
    (tmp_path / 'out').rename(tmp_path / 'moved')
    moved = DatasetFolder.load(tmp_path / 'moved')
    assert all(picture.path.is_file() for picture in moved.pictures('train'))
    assert not any(name.startswith('images') for name in moved.info['files'])


def test_our_own_export_is_read_back_byte_for_byte(tmp_path: Path) -> None:
    rows = dict(ROWS, **{'00': '0 0.1 0.1 0.9 0.13 0.77777 0.9 0.1 0.9\n1 0.2 0.2 0.3 0.2 0.3 0.33333\n'})
    source = labelled(tmp_path / 's', rows)
    first = imported(source, tmp_path / 'first')
    second = imported(tmp_path / 'first', tmp_path / 'second')
    for split in ('train', 'val'):
        assert second.folder.file_of(split).read_bytes() == first.folder.file_of(split).read_bytes()
    assert second.lost == []
    file = first.folder.file_of('val')
    alone = imported(file, tmp_path / 'alone', images=source, split='1')
    assert alone.folder.file_of('train').read_bytes() == file.read_bytes()


def test_predictions_are_read_back_byte_for_byte(tmp_path: Path) -> None:
    """A whole COCO file as prediction writes it: scores, polygons, and run lengths where there is a hole."""
    from mmlightvit.pictures.masks import Masks
    from mmlightvit.pictures.result import Result

    write_pictures(tmp_path / 'pics', ['a.jpg', 'b.jpg'])
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    masks[0, 5:20, 5:30] = masks[1, 30:40, 10:20] = masks[2, 10:30, 40:60] = True
    masks[0, 8:12, 8:12] = False
    masks[1, 42:45, 30:50] = True
    boxes = np.array([[5.013, 5, 30, 20], [10, 30, 50, 45], [40.5, 10, 60, 30]], np.float32)
    result = Result(
        'instance', ('cat', 'dog'), HEIGHT, WIDTH, boxes=boxes, scores=np.array([0.9, 0.8, 0.7], np.float32),
        labels=np.array([1, 0, 1]), masks=Masks.from_dense(masks),
    )  # fmt: skip
    content = {
        'images': [
            {'id': place, 'file_name': name, 'height': HEIGHT, 'width': WIDTH}
            for place, name in enumerate(('a.jpg', 'b.jpg'), 1)
        ],
        'annotations': [*result.to_coco_annotations(1, 1), *result.to_coco_annotations(2, 4)],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
    }
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    done = imported(tmp_path / 'annotations.json', tmp_path / 'out', images=tmp_path / 'pics', split='1')
    assert done.content('train') == content
    assert done.folder.file_of('train').read_text() == json.dumps(content)


def test_drawings_beside_predictions_are_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / 'pics', ['a.jpg'])
    write_pictures(tmp_path / 'found' / 'pictures', ['a.jpg'], 7)
    (tmp_path / 'found' / 'predictions.json').write_text('{}')
    content = {
        'images': [{'id': 1, 'file_name': 'pics/a.jpg', 'height': HEIGHT, 'width': WIDTH}],
        'annotations': [{'id': 1, 'image_id': 1, 'category_id': 1, 'bbox': [1, 1, 9, 9], 'area': 81, 'iscrowd': 0}],
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    file = tmp_path / 'found' / 'annotations.json'
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match='the picture is missing'):
        imported(file, tmp_path / 'out', split='1')
    monkeypatch.chdir(tmp_path)  # predictions say paths as they were given
    assert imported(file, tmp_path / 'out', split='1').folder.images == tmp_path / 'pics'


def test_splits_that_the_source_states_stay(tmp_path: Path) -> None:
    source = labelled(tmp_path / 's', ROWS)
    (source / 'train.txt').write_text('\n'.join(f'images/{name}.jpg' for name in list(ROWS)[:7]))
    (source / 'test.txt').write_text('\n'.join(f'images/{name}.jpg' for name in list(ROWS)[7:]))
    (source / 'data.yaml').write_text('train: train.txt\nval: test.txt\nnames: [cat, dog]\n')
    assert len(imported(source, tmp_path / 'out').names('val')) == 3
    (source / 'data.yaml').write_text('train: train.txt\nnames: [cat, dog]\n')
    open_val = imported(source, tmp_path / 'out2')
    assert [len(open_val.names(split)) for split in ('train', 'val')] == [5, 2]
    (source / 'data.yaml').write_text('train: train.txt\ntest: test.txt\nnames: [cat, dog]\n')
    tested = imported(source, tmp_path / 'out5')
    assert [len(tested.names(split)) for split in ('train', 'val', 'test')] == [5, 2, 3]
    (source / 'data.yaml').write_text('train: train.txt\nnames: [cat, dog]\n')
    anew = imported(source, tmp_path / 'out3', split='0.5,0.5')
    assert len(anew.names('val')) in (3, 4)
    for text in ('0.8', '0.8,0.3', 'x', '0,1', '0.8,0.1,0.05,0.05', '1.2,-0.2'):
        with pytest.raises(UserError, match='expected shares'):
            imported(source, tmp_path / 'out4', split=text)


def test_nothing_left_is_one_line_with_the_reason(tmp_path: Path) -> None:
    source = labelled(tmp_path / 's', {'a': '0 0.5 0.5 0.5 0.5'})
    (source / 'images' / 'a.jpg').write_bytes(b'x' * 100)
    with pytest.raises(UserError, match=r'nothing is left to train on; most often: it is not an image.*a\.jpg'):
        imported(source, tmp_path / 'out')
    with pytest.raises(UserError, match='these labels allow detection'):
        imported(source, tmp_path / 'out', task='instance')


def test_boxes_equal_supervisions(tmp_path: Path) -> None:
    """Of YOLO, VOC and COCO; what supervision itself writes as VOC is read as it reads it."""
    sv = pytest.importorskip('supervision')
    rng = np.random.default_rng(5)
    rows = {}
    for name in ROWS:
        centre, side = rng.uniform(0.3, 0.7, (4, 2)), rng.uniform(0.1, 0.5, (4, 2))
        rows[name] = ''.join(f'1 {x} {y} {w} {h}\n' for (x, y), (w, h) in zip(centre, side))
    source = labelled(tmp_path / 's', rows)
    done = imported(source, tmp_path / 'out', split='1')
    theirs = sv.DetectionDataset.from_yolo(str(source / 'images'), str(source / 'labels'), str(source / 'data.yaml'))
    for path, detections in theirs.annotations.items():
        ours = np.array([corners(item) for item in done.objects(Path(path).name)])
        np.testing.assert_allclose(ours, detections.xyxy, atol=1e-3)
    (tmp_path / 'voc').mkdir()
    theirs.as_pascal_voc(annotations_directory_path=str(tmp_path / 'voc'))
    voc = imported(tmp_path / 'voc', tmp_path / 'out-voc', images=source / 'images', split='1')
    back = sv.DetectionDataset.from_pascal_voc(str(source / 'images'), str(tmp_path / 'voc'))
    assert len(voc.all_names()) == 10
    for path, detections in back.annotations.items():
        ours = np.array([corners(item) for item in voc.objects(Path(path).name)])
        np.testing.assert_allclose(ours, detections.xyxy, atol=1e-3)
    again = sv.DetectionDataset.from_coco(str(source), str(done.folder.file_of('train')))
    for path, detections in again.annotations.items():
        ours = np.array([corners(item) for item in done.objects(Path(path).name)])
        np.testing.assert_allclose(ours, detections.xyxy, atol=1e-3)
        assert [again.classes[place] for place in detections.class_id] == ['dog'] * 4


def big_coco(root: Path, objects: int, pictures: int) -> Path:
    """A file of many boxes about few files, each of which many links name."""
    write_pictures(root / 'images', ['0.jpg'], size=(480, 640))
    rng = np.random.default_rng(0)
    for number in range(1, pictures):
        (root / 'images' / f'{number}.jpg').write_bytes((root / 'images' / '0.jpg').read_bytes())
    corner, side = rng.uniform(0, 400, (objects, 2)).round(2), rng.uniform(5, 80, (objects, 2)).round(2)
    content = {
        'images': [{'id': n, 'file_name': f'{n}.jpg', 'height': 480, 'width': 640} for n in range(pictures)],
        'categories': [{'id': n, 'name': f'c{n}'} for n in range(80)],
        'annotations': [
            {'id': n, 'image_id': n % pictures, 'category_id': n % 80, 'bbox': [x, y, w, h],
             'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            for n, ((x, y), (w, h)) in enumerate(zip(corner.tolist(), side.tolist()))
        ],
    }  # fmt: skip
    (root / 'x.json').write_text(json.dumps(content))
    return root


MEASURE = """
import sys, time
from pathlib import Path
from mmlightvit.data.importer import Options, import_labels
start = time.process_time()
done = import_labels(Path(sys.argv[1]), Path(sys.argv[2]), Options(split='1'))
print(time.process_time() - start, sum(len(picture.objects) for picture in done.labels.pictures))
print(sorted({'torch', 'mmengine', 'mmcv', 'cv2'} & set(sys.modules)))
print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])
"""


def test_many_boxes_take_seconds_and_little_memory_and_no_torch(tmp_path: Path, repo: Path) -> None:
    """A tenth of 100,000 boxes, in a tenth of 60 seconds."""
    source = big_coco(tmp_path / 's', 10_000, 40)
    done = subprocess.run(
        [sys.executable, '-c', MEASURE, source, tmp_path / 'out'],
        capture_output=True,
        text=True,
        cwd=repo,
        check=True,
        timeout=120,
    )
    first, modules, peak = done.stdout.splitlines()
    seconds, objects = first.split()
    assert int(objects) == 10_000 and float(seconds) < 6
    assert modules == '[]'
    assert int(peak) < 1_000_000  # kilobytes


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_kept_and_what_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = dict(ROWS, **{'03': '0 0.5 0.5 0.25 0.25\n0 0.5\n'})
    source = labelled(tmp_path / 's', rows)
    assert main(['data', 'import', str(source), '--out', str(tmp_path / 'out')]) == 0
    out, err = capsys.readouterr()
    assert f'{source} (yolo) -> {tmp_path / "out"}: detection, 2 classes' in out
    assert 'train        8 pictures        8 objects' in out
    assert 'left out: 1 x it has 2 numbers' in out and 'lost.csv' in out
    assert 'no problems in 10 images' in out and f'python tools/train.py {tmp_path / "out" / "config.py"}' in out
    assert err == ''
    assert main(['data', 'import', str(source), '--out', str(tmp_path / 'strict'), '--strict']) == 1
    assert (tmp_path / 'strict' / 'dataset.json').is_file()
    capsys.readouterr()
    assert main(['data', 'import', str(source), '--out', str(tmp_path / 'out')]) == 1
    out, err = capsys.readouterr()
    assert out == '' and err.startswith('error: --out') and err.count('\n') == 1


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ['import'], ['split'], ['check'], ['show'], ['stats']):
        with pytest.raises(SystemExit) as end:
            main(['data', *command, '--help'])
        assert end.value.code == 0
        out = capsys.readouterr().out
        assert len(out.splitlines()) <= 50 and out.rstrip().splitlines()[-3].startswith('examples:'), out
